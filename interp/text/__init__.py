"""From messages to text and token ids: files of prompts, templates and their options, control tokens, thoughts."""
