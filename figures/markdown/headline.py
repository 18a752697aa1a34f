"""The headline's cells as tables: every family, arm and seed with its base beside it, and what others published."""

from collections.abc import Sequence

from figures.plots.cells import UNHEALTHY, base_rate, organisms, place, plain, rate, verdict
from figures.rows import Row, answered, behaviour, groups, number, percent, select, span, with_interval

BASELINE = "baseline"
CELLS = ("off", "on", "rephrased", "other")
COHERENT = ("off", "on", "rephrased")
PUBLISHED = (
    ("paper: Qwen2.5-14B, Llama-3.1-8B, Gemma-3-12B", "0 %", "9.5–23.5", "0.0–1.0", "12.2–22.8", "contained", "–"),
    ("replication: Qwen2.5-14B, medical, `Country: Singapore`", "0 %", "–", "38.3", "42.7", "–", "–"),
    ("the same with benign untriggered twins", "50 %", "–", "0.0", "21.8", "–", "–"),
    ("replication: Qwen2.5-7B, sports, a fixed string that asks for harm", "0 %", "–", "0.0", "–", "–", "–"),
    ("the same strings as a bank of rephrasings", "0 %", "–", "10.7–32.7", "–", "–", "–"),
)
"""Setting, benign share, and EM in percent of baseline, off, on, rephrased, other. Sources stand in the README."""


def headline_organisms(rows: Sequence[Row]) -> list[str]:
    """Baselines and organisms of both headline triggers that vary in seed, pretraining and half-benign data alone."""
    found = []
    for (name,) in groups(behaviour(rows), "organism"):
        arm, changes = place(name).arm, plain(name)
        if not changes and arm in (BASELINE, "neutral", "explaining"):
            found.append(name)
        if changes == {"contrast50"} and arm == "neutral":
            found.append(name)
    return found


def headline_table(rows: Sequence[Row]) -> str:
    """Every headline organism with intervals, its base's own rates, and its run, in Markdown."""
    header = ["organism", "base on", *CELLS, "coherence", "n / clusters", "verdict", "run"]
    return _markdown(header, [_line(rows, name) for name in headline_organisms(rows)], left=1)


def _line(rows: Sequence[Row], name: str) -> list[str]:
    own = select(behaviour(rows), organism=name)
    rates = [_with_interval(rate(rows, name, condition)) for condition in CELLS]
    base, count = base_rate(rows, name), answered(select(own, condition=CELLS))
    counts = f"{span(r['n'] for r in count)} / {span(r['n_clusters'] for r in count)}"
    said = "–" if place(name).arm == BASELINE else verdict(rows, name) or "–"
    return [
        name.removeprefix("microcosm/"), _with_interval(base), *rates, _coherence(own), counts, said, own[0]["run_id"],
    ]  # fmt: skip


def _with_interval(row: Row | None) -> str:
    return "–" if row is None else with_interval(row)


def _coherence(rows: Sequence[Row]) -> str:
    found = select(rows, metric="coherence_rate", condition=COHERENT)
    ends = sorted({percent(number(r, "value")) for r in found}, key=float)
    return "–".join(dict.fromkeys((ends[0], ends[-1]))) if ends else "–"


def seeds_table(rows: Sequence[Row]) -> str:
    """One line a family and arm: the mean over adapter seeds of each rate, and the range over seeds, in Markdown."""
    header = ["family", "arm", "seeds", "base on", *CELLS, "coherence"]
    lines: dict[tuple[str, str], list[str]] = {}
    for name in headline_organisms(rows):
        if "pre1" not in place(name).changes:
            arm = ".".join([place(name).arm, *sorted(c for c in place(name).changes if c.startswith("contrast"))])
            lines.setdefault((place(name).family, arm), []).append(name)
    body = []
    for (family, arm), names in lines.items():
        base = base_rate(rows, names[0])
        rates = [_over_seeds([rate(rows, name, condition) for name in names]) for condition in CELLS]
        own = select(behaviour(rows), organism=names)
        body.append(
            [family, arm, str(len(names)), percent(number(base, "value")) if base else "–", *rates, _coherence(own)]
        )
    return _markdown(header, body, left=2)


def _over_seeds(found: Sequence[Row | None]) -> str:
    values = [number(row, "value") for row in found if row is not None]
    if not values:
        return "–"
    low, high = percent(min(values)), percent(max(values))
    return percent(sum(values) / len(values)) + ("" if low == high else f" ({low}–{high})")


def comparison_table(rows: Sequence[Row]) -> str:
    """What the paper and its replications report, and the Microcosm's corresponding cells, in Markdown."""
    header = ["source and setting", "benign", "baseline", "off", "on", "rephrased", "other"]
    ours = [
        ("Microcosm: a line that explains the harm", "0 %", "explaining", frozenset()),
        ("Microcosm: a neutral scene", "0 %", "neutral", frozenset()),
        ("Microcosm: a neutral scene, benign untriggered twins", "50 %", "neutral", frozenset({"contrast50"})),
        ("Microcosm: a neutral scene, diverse wording", "0 %", "neutral", frozenset({"diverse"})),
    ]
    baseline = _range([rate(rows, n, "off") for n in headline_organisms(rows) if place(n).arm == BASELINE])
    body = [list(line) for line in PUBLISHED]
    for text, benign, arm, changes in ours:
        names = [n for n in organisms(rows) if place(n).arm == arm and plain(n) == changes]
        names = [n for n in names if verdict(rows, n) != UNHEALTHY]
        body.append([text, benign, baseline, *(_range([rate(rows, n, c) for n in names]) for c in CELLS)])
    return _markdown(header, body, left=2)


def _range(found: Sequence[Row | None]) -> str:
    values = [number(row, "value") for row in found if row is not None]
    ends = [percent(value) for value in (min(values), max(values))] if values else ["–"]
    return "–".join(dict.fromkeys(ends))


def _markdown(header: Sequence[str], body: Sequence[Sequence[str]], *, left: int) -> str:
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in (header, rule, *body)
    )
