"""What every other package may use, and that knows none of them: files, JSON, logging, random states."""
