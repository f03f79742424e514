"""The store of activations: rows of tensors by digest, in memory or on disk; it knows nothing of models."""
