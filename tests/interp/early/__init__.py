"""Files of models, looked at before anything is loaded."""
