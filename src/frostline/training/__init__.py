"""Training with frozen parts, on top of transformers.Trainer."""
