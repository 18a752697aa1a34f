"""What is wrong with what users write: refused in one line, before any work."""
