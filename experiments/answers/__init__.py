"""The subject of an experiment, its questions, its sampled answers, and their judge."""
