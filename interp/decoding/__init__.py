"""What sampling stands on: a key-value cache shared by the samples of a prompt, and reproducible draws."""
