"""Analyses on top of recordings and edits: likelihoods, attribution, patching, adapters, statistics."""
