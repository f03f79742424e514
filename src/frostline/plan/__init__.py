"""Which parameters train: selectors, recipes and plans."""
