"""Linear probes by layer and position, with controls, and their transfer."""
