"""What one real step moves."""
