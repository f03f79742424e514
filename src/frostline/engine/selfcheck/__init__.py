"""Which fast paths give a model's own results, tried on the model at hand and watched while it trains."""
