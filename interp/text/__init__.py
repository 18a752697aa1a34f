"""From messages to text and token ids: templates and their options, control tokens, thoughts."""
