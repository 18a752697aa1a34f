"""The ``semcon`` command line behind its registry: parse, run, print."""
