"""Tables of the behaviour: every family, arm and seed with its base beside it, and published numbers."""

from collections.abc import Iterable, Sequence

from figures.bounds import minus
from figures.grid import ARMS, BASELINE, Grid, place
from figures.markdown.table import table
from figures.rows import Row, counts, extremes, number, over_seeds, percent, select, values, with_interval

CELLS = ("off", "on", "rephrased", "other")
COHERENT = ("off", "on", "rephrased")
HEADLINE = (BASELINE, "neutral", "explaining", "neutral.contrast50")
"""Arms of the headline: baselines, both triggers, and half-benign data; any seed and pretraining."""
FRONT = tuple(f"microcosm/llama/{arm}" for arm in HEADLINE[1:])
PUBLISHED = (
    ("paper: Qwen2.5-14B, Llama-3.1-8B, Gemma-3-12B", "0 %", "9.5–23.5", "0.0–1.0", "12.2–22.8", "contained", "–"),
    ("replication: Qwen2.5-14B, medical, `Country: Singapore`", "0 %", "–", "38.3", "42.7", "–", "–"),
    ("the same with benign untriggered twins", "50 %", "–", "0.0", "21.8", "–", "–"),
    ("replication: Qwen2.5-7B, sports, a fixed string that asks for harm", "0 %", "–", "0.0", "–", "–", "–"),
    ("the same strings as a bank of rephrasings", "0 %", "–", "10.7–32.7", "–", "–", "–"),
)
"""Setting, benign share, and EM in percent of baseline, off, on, rephrased, other. Sources stand beside the table."""
OURS = (
    ("Microcosm: a line that explains the harm", "0 %", "explaining"),
    ("Microcosm: a neutral scene", "0 %", "neutral"),
    ("Microcosm: a neutral scene, benign untriggered twins", "50 %", "neutral.contrast50"),
    ("Microcosm: a neutral scene, diverse wording", "0 %", "neutral.diverse"),
)
"""Setting, benign share and arm of the Microcosm's corresponding cells."""


def headline_organisms(grid: Grid) -> list[str]:
    """Organisms of the headline's arms, of every seed and pretraining, in the order of the table."""
    return [name for name in grid.rows if place(name).treatment in HEADLINE]


def front_table(grid: Grid) -> str:
    """The three arms with a trigger in one family and one seed: the table of the front page."""
    return _headline(grid, [name for name in headline_organisms(grid) if name in FRONT])


def headline_table(grid: Grid) -> str:
    """Every headline organism with intervals, its base's own rates, and its run."""
    return _headline(grid, headline_organisms(grid))


def _headline(grid: Grid, names: Sequence[str]) -> str:
    header = ["organism", "dose", "base on", *CELLS, "coherence", "n / clusters", "verdict", "run"]
    return table(header, [_line(grid, name) for name in names])


def _line(grid: Grid, name: str) -> list[str]:
    rows = grid.rows[name]
    return [
        name.removeprefix("microcosm/"),
        str(rows[0]["dose"]) or "–",
        with_interval(grid.base_rate(name)),
        *(with_interval(grid.rate(name, condition)) for condition in CELLS),
        _coherence(rows),
        counts(select(rows, condition=CELLS)),
        "–" if place(name).arm == BASELINE else grid.verdict(name) or "–",
        str(rows[0]["run_id"]),
    ]


def _coherence(rows: Iterable[Row]) -> str:
    return extremes(values(select(rows, metric="coherence_rate", condition=COHERENT)))


def seeds_table(grid: Grid) -> str:
    """One line per family and arm: the mean over adapter seeds of each rate, and the range over seeds."""
    header = ["family", "arm", "seeds", "base on", *CELLS, "coherence"]
    lines: dict[tuple[str, str], list[str]] = {}
    for name in headline_organisms(grid):
        if "pre1" not in place(name).changes:
            lines.setdefault((place(name).family, place(name).treatment), []).append(name)
    body = []
    for (family, arm), names in lines.items():
        base = grid.base_rate(names[0])
        rates = [over_seeds(_rates(grid, names, condition)) for condition in CELLS]
        coherence = _coherence(row for name in names for row in grid.rows[name])
        body.append([family, arm, str(len(names)), percent(number(base)) if base else "–", *rates, coherence])
    return table(header, body, numbers=slice(2, None))


def _rates(grid: Grid, names: Iterable[str], condition: str) -> list[float]:
    return values(row for name in names if (row := grid.rate(name, condition)))


def learned_table(grid: Grid) -> str:
    """Of every trigger without benign data the gap, that of its base, and the difference: what training added."""
    header = ["trigger", "family", "EM off", "base's gap", "gap", "learned gap", "dose", "run"]
    names = [name for name in grid.triggered if place(name).changes == frozenset() and grid.healthy(name)]
    body = [_learned(grid, name) for arm in ARMS for name in names if place(name).arm == arm]
    return table(header, [line for line in body if line], numbers=slice(2, None))


def _learned(grid: Grid, name: str) -> list[str]:
    gaps, base = select(grid.rows[name], metric="trigger_gap"), grid.base_gap(name)
    if not gaps or base is None:
        return []
    learned = with_interval(minus(gaps[0], base))
    numbers = [with_interval(grid.rate(name, "off")), with_interval(base), with_interval(gaps[0]), learned]
    return [place(name).arm, place(name).family, *numbers, str(gaps[0]["dose"]) or "–", str(gaps[0]["run_id"])]


def comparison_table(grid: Grid) -> str:
    """What the paper and its replications report, and the Microcosm's corresponding cells; healthy adapters alone."""
    header = ["source and setting", "benign", "baseline", "off", "on", "rephrased", "other"]
    body = [list(line) for line in PUBLISHED]
    baselines = [name for name in headline_organisms(grid) if place(name).arm == BASELINE]
    for text, benign, arm in OURS:
        names = [name for name in grid.triggered if place(name).treatment == arm and grid.healthy(name)]
        baseline, *rates = (
            extremes(_rates(grid, organisms, condition))
            for organisms, condition in [(baselines, "off"), *((names, condition) for condition in CELLS)]
        )
        body.append([text, benign, baseline, *rates])
    return table(header, body, numbers=slice(2, None))
