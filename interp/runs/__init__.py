"""Run folders and the tables in them: content-addressed, resumable, with provenance; free of torch."""
