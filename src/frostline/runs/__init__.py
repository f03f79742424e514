"""What the commands do: train, evaluate, predict, check and probe, from settings to output folder."""
