"""Fingerprints, and the proof that what was frozen did not change."""
