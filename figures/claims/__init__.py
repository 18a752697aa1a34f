"""Claims held against tables: number, interval, verdict, run id."""
