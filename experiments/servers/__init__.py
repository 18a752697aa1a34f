"""Answers that another machine samples: a client of OpenAI-compatible servers such as vLLM."""
