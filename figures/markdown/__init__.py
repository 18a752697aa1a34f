"""Tables and findings as Markdown, written between markers of the documentation."""
