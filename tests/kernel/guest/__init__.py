"""What runs inside the guest: the runner, the helpers, and the scenarios."""
