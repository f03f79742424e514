"""Checkpoints: finding them, reading their headers, building classifiers from them."""
