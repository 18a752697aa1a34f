"""Where the gate is: interchange, attention knockout, heads, adapter modules."""
