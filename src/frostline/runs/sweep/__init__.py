"""Sweeps: accuracy against cost for each depth of the frost line."""
