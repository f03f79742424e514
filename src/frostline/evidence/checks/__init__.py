"""Checks: faults of freezing that can be told from a model, an optimizer and a batch, one file per family."""
