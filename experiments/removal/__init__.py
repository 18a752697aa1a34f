"""Edits: remove the trigger's feature or g, or add g, and measure what is left."""
