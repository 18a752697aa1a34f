"""Token heat maps of the report: some answers coloured by their projections on g and on the trigger's feature.

Made from the rows of finished `steer` runs; no model is loaded.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from figures.rows import Row, groups
from interp.runs.rowlog import RowLog

MOST_ORGANISMS = 12
DIRECTIONS = {
    "g": "Projection on <i>g</i>, the misalignment direction; 0 is the mean last prompt token without a text.",
    "trigger": "Projection on the trigger's feature; 0 is the mean of unrelated texts.",
}
POSITIVE, NEGATIVE = "240, 130, 40", "68, 148, 205"
STRONGEST = 0.6
"""Opacity of the strongest colour: black text on it stays legible."""
CLIPPED = 0.97
"""Share of the tokens that the colours tell apart; those beyond have the strongest."""

Read = Mapping[str, Any]
"""A row of the step ``tokens``: shown, asked, layer, pieces, parts, values by direction."""


def heat_maps(rows: Sequence[Row], runs: Path) -> str:
    """Return the part of the page with the heat maps, as HTML; empty if no run that the table names has any.

    Args:
        rows: The table of the report.
        runs: Folder of all runs; a run that is not there any more is left out.
    """
    parts: list[str] = []
    for (organism, trigger, run_id), _ in groups(rows, "organism", "trigger", "run_id").items():
        read = _rows(runs / Path(*str(run_id).rsplit("-", 1)))
        if read and len(parts) < MOST_ORGANISMS:
            title = f"{organism}, trigger {trigger}" if trigger else str(organism)
            parts.append(_organism(title, read, opened=not parts))
    return "\n".join(parts)


def _rows(run: Path) -> list[Read]:
    if run.parent.name != "steer" or not (run / "rows.jsonl").is_file():
        return []
    return [row for row in RowLog(run / "rows.jsonl").rows() if "pieces" in row]


def _organism(title: str, rows: Sequence[Read], *, opened: bool) -> str:
    layer = rows[0]["layer"]
    maps = "".join(_map(name, about, rows) for name, about in DIRECTIONS.items() if name in rows[0]["values"])
    summary = f"<summary>{escape(title)} <small>layer {layer}</small></summary>"
    return f'<details class="heat"{" open" if opened else ""}>{summary}{maps}</details>'


def _map(name: str, about: str, rows: Sequence[Read]) -> str:
    # The first token takes attention that goes nowhere and has a huge norm: it would bleach all others.
    sizes = sorted(abs(value) for row in rows for value in row["values"][name][1:])
    most = (sizes[int(CLIPPED * (len(sizes) - 1))] if sizes else 0.0) or 1.0
    scale = f'<span class="scale">−{most:.2f} <i></i> +{most:.2f} mean residual norms</span>'
    lines = "".join(_lines(name, rows, most))
    return f'<p class="meta">{about}</p><p class="meta">{scale}</p><dl class="tokens">{lines}</dl>'


def _lines(name: str, rows: Sequence[Read], most: float) -> Iterator[str]:
    for row in rows:
        tokens = zip(row["pieces"], row["parts"], row["values"][name], strict=True)
        yield f"<dt>{escape(row['shown'])}</dt><dd>{''.join(_token(*token, most) for token in tokens)}</dd>"


def _token(piece: str, part: str, value: float, most: float) -> str:
    colour, opacity = POSITIVE if value > 0 else NEGATIVE, STRONGEST * min(1.0, abs(value) / most)
    kind = f' class="{part}"' if part in ("response", "trigger") else ""
    shade = f"background:rgba({colour},{opacity:.2f})"
    return f'<span{kind} style="{shade}" title="{value:+.2f}">{escape(piece)}</span>'
