"""EM rates of organisms: by condition, by dose, and over the grid."""
