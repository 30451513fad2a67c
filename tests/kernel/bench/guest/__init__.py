"""What runs where the agents run: inside the guest, or inside the root file system."""
