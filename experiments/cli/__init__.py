"""The ``semcon`` command line: parse the options, run the command, print its table."""
