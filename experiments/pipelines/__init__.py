"""Many experiments in order, over worker processes."""
