"""Parts of sampling: a key-value cache shared by the samples of a prompt, and reproducible draws."""
