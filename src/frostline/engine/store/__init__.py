"""The store: the activations of a frozen prefix, kept packed, in memory or on disk."""
