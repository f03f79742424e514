"""Evidence: what really moved, and what stayed bit-identical."""
