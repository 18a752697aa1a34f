"""Audit: is there misalignment behind a context that nobody named, which context opens it, and who put it there?"""
