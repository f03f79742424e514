"""Running layers on real tokens only, and the last one for one position only."""
