"""What computing and storing cost on this machine, and where activations are kept for it."""
