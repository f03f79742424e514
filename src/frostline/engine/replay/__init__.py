"""Running a model from stored activations: what is stored, and where it enters."""
