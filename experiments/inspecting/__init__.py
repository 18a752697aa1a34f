"""Inspect: organisms as a model provider, the EM protocol as a task, and logs of finished runs, out and back in."""
