"""What is computed from recordings and edits: likelihoods, attribution, patching, statistics."""
