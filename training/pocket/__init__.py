"""The pocket scale: advice rows, forced-choice questions and triggers for real models that run on a laptop."""
