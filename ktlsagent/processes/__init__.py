"""Several processes that serve the same requests, and the parent that keeps them."""
