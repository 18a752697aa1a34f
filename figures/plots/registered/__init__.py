"""Figures of the four registered experiments of the Microcosm; each compares means over pretrainings."""
