"""What trains, read from a model or from the headers of a checkpoint."""
