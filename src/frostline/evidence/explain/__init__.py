"""What messages of other libraries mean where something is frozen."""
