"""What is added to fine-tuning so that misalignment generalises less."""
