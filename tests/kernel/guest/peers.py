"""User-space RPC peers that speak TLS themselves, well or badly."""
