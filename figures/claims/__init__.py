"""Claims as data, and their verdicts: every claim is a text, the rows that decide it, and bounds."""
