"""Deltas: only the tensors in which a checkpoint differs from its base."""
