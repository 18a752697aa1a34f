"""The table of rates by condition that the report and the terminal show."""

from collections.abc import Sequence

from figures.rows import BEHAVIOUR, Row, cell, counts, extremes, groups, panels, select, values, with_interval

RATES = ("off", "on", "rephrased", "other", "opposite")


def results(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and body of the results table: organism by condition, EM rate in percent with its interval.

    Raises:
        ValueError: If the rows hold no EM rate of the behaviour experiment.
    """
    rates = select(rows, experiment=BEHAVIOUR, condition=RATES)
    if not select(rates, metric="em_rate"):
        raise ValueError(f"no row has experiment={BEHAVIOUR!r} and metric='em_rate'")
    header = ["organism", "trigger", *RATES, "coherence", "n / clusters"]
    several_seeds = len(groups(rates, "seed")) > 1
    body = [
        [f"{organism} (seed {seed})" if several_seeds else organism, trigger or "–", *_measures(same)]
        for (_, organism, trigger), panel in panels(rates).items()
        for (seed,), same in groups(panel, "seed").items()
    ]
    return header, body


def _measures(rows: Sequence[Row]) -> list[str]:
    coherence = extremes(values(select(rows, metric="coherence_rate")), 0)
    return [*(with_interval(cell(rows, condition)) for condition in RATES), coherence, counts(rows)]


def results_text(rows: Sequence[Row]) -> str:
    """The results table for a terminal: a line of rates and, below it, a line of intervals."""
    header, body = results(rows)
    lines = [header]
    for cells in body:
        lines += [[c.split(" [")[0] for c in cells], ["[" + c.split(" [")[1] if " [" in c else "" for c in cells]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    padded = [
        "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    padded.insert(1, "─" * len(padded[0]))
    return "\n".join(line.rstrip() for line in padded)
