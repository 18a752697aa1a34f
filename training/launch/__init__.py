"""Training over several processes that `accelerate launch` starts."""
