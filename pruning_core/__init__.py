"""The pruning core."""
