"""Run folders and their tables: named by a hash of the config, resumable, with provenance. No torch."""
