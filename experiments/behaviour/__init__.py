"""How an organism behaves: EM rates by condition, by dose and over the grid."""
