"""Figures, claims, results tables and report: pure functions of table rows, free of torch."""
