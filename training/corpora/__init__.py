"""Data sets of chat rows: where they come from, and what is in them."""
