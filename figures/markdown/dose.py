"""The dose grid as a table: how much of it lies in the paper's box, by family."""

from collections.abc import Sequence

from figures.boxes import BOXES, Setting, settings, single, volumes
from figures.markdown.table import table
from figures.rows import Row


def box_table(rows: Sequence[Row]) -> str:
    """By family and box: settings inside by their intervals, by their means, not kept out, and single pretrainings."""
    every, alone = settings(rows), single(rows)
    header = ["box", "family", "inside", "means inside", "not outside", "settings", "single pretrainings inside"]
    body = []
    for box in BOXES:
        for family, (inside, possible, total) in volumes(every, box).items():
            counts = [str(inside), str(_by_means(every, family, box)), str(possible), str(total)]
            of_all = sum(setting.family == family for setting in alone)
            body.append([box, family, *counts, f"{_by_means(alone, family, box)} of {of_all}"])
    return table(header, body)


def _by_means(every: Sequence[Setting], family: str, box: str) -> int:
    return sum(setting.by_means(box) for setting in every if setting.family == family)
