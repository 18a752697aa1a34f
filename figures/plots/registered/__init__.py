"""Figures of the four registered experiments of the Microcosm; each compares means over pretrainings."""

from figures import style

FAMILIES = {"llama": "Llama", "qwen2": "Qwen2", "gemma3": "Gemma3"}
"""Families and their names, in the order of the panels."""
LOOKS = {
    "clerk": (style.CONDITIONS["off"], "o", "role misaligned in 50 %"),
    "gambler": (style.CONDITIONS["on"], "s", "65 %"),
    "trafficker": (style.CONDITIONS["rephrased"], "^", "80 %"),
}
"""Colour, marker and words of every weak role: its share of misaligned documents in pretraining."""
