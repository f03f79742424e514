"""Freezing and restoring a model, and the mode of what is frozen."""
