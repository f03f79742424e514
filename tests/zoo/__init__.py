"""Tiny models of every type that transformers registers for sequence classification."""
