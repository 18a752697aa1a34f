"""Directions of the residual stream: how they are estimated, chosen and compared."""
