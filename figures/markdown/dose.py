"""The dose grid as a table: how much of it lies in the paper's box, by family."""

from collections.abc import Sequence

from figures.boxes import BOXES, settings, volumes
from figures.markdown.table import table
from figures.rows import Row


def box_table(rows: Sequence[Row]) -> str:
    """By family, of all settings: those in each box by their intervals, and those that no interval keeps out of it."""
    every = settings(rows)
    found = {box: volumes(every, box) for box in BOXES}
    header = ["family", "settings", *(f"{box} box: {how}" for box in BOXES for how in ("inside", "not outside"))]
    body = [
        [family, str(total), *(str(count) for box in BOXES for count in found[box][family][:2])]
        for family, (_, _, total) in found["paper"].items()
    ]
    return table(header, body)
