"""One self-contained page from results; it knows plain values only, and nothing of models."""
