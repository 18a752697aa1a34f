"""Is a judge to be trusted, and what does it cost? Validation on labelled controls, and published instructions."""
