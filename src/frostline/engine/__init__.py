"""The engine: what is frozen is computed once, and padding never."""
