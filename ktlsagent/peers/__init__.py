"""Who a peer is and what it may do: names, chains, rules and session tags, in pure code."""
