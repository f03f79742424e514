"""What a model is made of: units, stacks, tied weights and where each tensor came from."""
