"""The hypotheses of docs/hypotheses-microcosm.md, held against the tables of its four experiments."""
