"""What became of each tensor between two checkpoints."""
