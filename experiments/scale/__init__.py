"""What an experiment needs on a given machine, estimated from the shapes of its model alone."""
