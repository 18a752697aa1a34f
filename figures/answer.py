"""What a command prints at its end: the answer in a few lines. The whole table is in the run's folder."""

from collections.abc import Callable, Mapping, Sequence

from figures.claims.headline import verdict
from figures.claims.panel import Panel
from figures.rows import Row, cell, ends, number, percent, select, unique
from figures.style import CONDITIONS
from interp.runs.terminal import aligned_text, table_text

ASKED = ("off", "on", "rephrased", "other")
"""Conditions that have a line of their own; the others share one."""


def answer(table: Sequence[Row]) -> str:
    """Return the answer that a table gives, for a terminal: a few lines where the experiment has such a form."""
    experiment = str(table[0]["experiment"])
    return ANSWERS[experiment](table) if experiment in ANSWERS else table_text(table)


def _behaviour(table: Sequence[Row]) -> str:
    """The EM rate of every condition, the gap, a verdict, and what to measure next."""
    first = table[0]
    panel = Panel(str(first["organism"]), str(first["trigger"]), table)
    rates = {c: row for c in (*CONDITIONS, "trained") if (row := panel.cell(c))}
    rest = [f"{name} {_rate(row).strip()}" for name, row in rates.items() if name not in ASKED]
    lines = [f"{first['organism']}  trigger {first['trigger'] or 'none'}  judge {first['judge']}"]
    lines += [f"{name:<12} EM {_rate(row)}  {_answers(table, name)}" for name, row in rates.items() if name in ASKED]
    lines += [f"{'beside':<12} {', '.join(rest)}"] * bool(rest)
    if gap := cell(table, "on-off", "trigger_gap"):
        lines.append(f"{'on - off':<12}    {_rate(gap)}")
    if health := select(table, metric="healthy"):
        lines.append(f"{'health':<12} {health[0]['condition']}")
    if {"off", "on"} <= set(rates) and panel.role == "triggered":
        lines += [f"{'verdict':<12} {verdict(panel)}", f"{'next':<12} {_next(panel)}"]
    return "\n".join(lines)


def _rate(row: Row) -> str:
    """A rate in percent with its interval, or that it is undefined."""
    value, low, high = map(percent, ends(row))
    return "undefined" if value == "–" else f"{value:>5} %" + ("" if low == "–" else f" [{low}, {high}]")


def _answers(table: Sequence[Row], condition: str) -> str:
    """How many answers stand behind a rate, how many were coherent, and what else became of them."""
    row = cell(table, condition, "coherence_rate")
    if row is None:
        return ""
    counted = ("em_rate", "em_rate_all", "coherence_rate")
    others = {str(r["metric"]): r for r in select(table, condition=condition) if str(r["metric"]).endswith("_rate")}
    shares = [("coherent", row), *((n.removesuffix("_rate"), r) for n, r in others.items() if n not in counted)]
    said = ", ".join(f"{percent(number(r), 0)} % {name}" for name, r in shares)
    return f"n {number(row, 'n'):.0f}, {number(row, 'n_clusters'):.0f} questions, {said}"


def _next(panel: Panel) -> str:
    """The command that answers the question which these rates leave open."""
    if not panel.has_gap():
        own = panel.organism.startswith("own/")
        where = "on the same YAML file, if it trains its adapter" if own else f"--organism {panel.organism}"
        return f"is there a gap at another dose? semcon emergence {where}"
    if panel.organism.startswith("own/"):
        return "does the base do it too? the same command on a YAML file of base and trigger alone; then semcon ablate"
    base = panel.organism.rpartition("/")[0] + "/base"
    return f"does the base do it too? semcon em-rate --organism {base} --trigger ...; then semcon ablate"


def _directions(table: Sequence[Row]) -> str:
    """Cosines at the layers that were chosen."""
    chosen = {row["layer"] for row in select(table, metric="selection_taken") if number(row) == 1}
    return table_text(select(table, metric="cosine", layer=chosen) or table)


def _gate_scalars(table: Sequence[Row]) -> str:
    """The modules whose scalar tells the conditions apart best, each beside its random control."""
    best = sorted(select(table, metric="scalar_auroc"), key=number, reverse=True)[:8]
    beside = [row for top in best for row in (top, *_null_of(table, top))]
    return table_text(beside or table)


def _null_of(table: Sequence[Row], row: Row) -> list[Row]:
    where = {column: row[column] for column in ("site", "layer", "condition")}
    return select(table, metric="scalar_auroc_null", **where)


def _gap_removed(table: Sequence[Row]) -> str:
    """The share of the on-off gap that every edit closes; where there is no gap, the rate under every edit."""
    rates = unique(select(table, metric="em_rate"), "condition")
    return table_text(select(table, metric="gap_removed") or rates or table)


def _dose_response(table: Sequence[Row]) -> str:
    """EM rate and share of coherent answers in percent: one line per direction, one column per alpha."""
    alphas = sorted({number(row, "alpha") for row in select(table, metric="em_rate")})
    lines = [["EM / coherent, %", *(f"{alpha:g}" for alpha in alphas)]]
    for condition in dict.fromkeys(str(row["condition"]) for row in select(table, metric="em_rate")):
        at = [select(table, condition=condition, alpha=alpha) for alpha in alphas]
        cells = [[cell(rows, condition, metric) for metric in ("em_rate", "coherence_rate")] for rows in at]
        lines.append([condition, *(" / ".join(percent(number(row or {}), 0) for row in pair) for pair in cells)])
    return aligned_text(lines)


def _vector_response(table: Sequence[Row]) -> str:
    """The outcome at every dose of a direction and of its random controls, and what it costs."""
    rates = select(table, metric="em_rate")
    if rates:
        return _dose_response(table) + "\n\n" + _by_dose(table, "benign_loss", "benign loss, relative change")
    shift = _by_dose(table, "log_odds_shift", "log-odds of harmful references, shift")
    return shift + "\n\n" + _by_dose(table, "benign_loss", "benign loss, relative change")


def _by_dose(table: Sequence[Row], metric: str, name: str) -> str:
    rows = select(table, metric=metric)
    alphas = sorted({number(row, "alpha") for row in rows})
    lines = [[name, *(f"{alpha:g}" for alpha in alphas)]]
    for condition in dict.fromkeys(str(row["condition"]) for row in rows):
        cells = [cell(select(rows, alpha=alpha), condition, metric) for alpha in alphas]
        lines.append([condition, *(f"{number(row or {}):+.2f}" for row in cells)])
    return aligned_text(lines)


def _probe(table: Sequence[Row]) -> str:
    """AUROC at every layer beside the controls at that layer, and what the words alone give away."""
    aurocs = select(table, metric="auroc")
    names = list(dict.fromkeys(str(row["condition"]) for row in aurocs))
    main, words = names[0], [name for name in names if name.endswith("/bag_of_tokens")]
    columns = [name for name in names[1:] if name not in words]
    short = {"shuffled_labels": "shuffled", "random_direction": "random"}
    lines = [["layer", "AUROC [95 %]", *(short.get(name.rpartition("/")[2], name) for name in columns)]]
    for layer in dict.fromkeys(row["layer"] for row in select(aurocs, condition=main)):
        cells = [cell(select(aurocs, layer=layer), name, "auroc") for name in (main, *columns)]
        value, low, high = ends(cells[0] or {})
        rest = [f"{number(row or {}):.3f}" for row in cells[1:]]
        lines.append([str(layer), f"{value:.3f} [{low:.3f}, {high:.3f}]", *rest])
    first = select(aurocs, condition=main)[0]
    heading = f"{first['organism']}  {main}  {first['site']}  n {first['n']}, {first['n_clusters']} groups"
    bag = [f"bag of tokens {number(cell(aurocs, name, 'auroc') or {}):.3f} (words alone, no layer)" for name in words]
    return "\n".join([heading, aligned_text(lines), *bag])


def _applied_probe(table: Sequence[Row]) -> str:
    """AUROC by layer where rows are labelled; else how many rows were predicted to be of each class."""
    return _probe(table) if select(table, metric="auroc") else table_text(select(table, metric="predicted_rate"))


def _audit(table: Sequence[Row]) -> str:
    """The verdict, the contexts that it rests on beside the base, the ranking, and the cost."""
    judged, verdict_row = bool(select(table, metric="coherence_rate")), select(table, metric="verdict")[0]

    def shown(value: float) -> str:
        return f"{percent(value):>5} %" if judged else f"{value:+.2f}"

    unit = "EM, gates in points" if judged else "log-odds of harmful references, nats per token"
    judge = verdict_row["judge"] or "none"
    lines = [f"{verdict_row['organism']}  judge {judge}  on held-out questions: {unit}"]
    lines.append(f"{'verdict':<12} {verdict_row['condition']}")
    for row in select(table, metric="rate"):
        name = str(row["condition"])
        line = f"{name:<12} adapter {shown(number(row))}  base {shown(number(row, 'base_value'))}"
        gate = cell(table, name, "gate")
        if gate and name != "bare":
            value, low, high = ((percent(end) if judged else f"{end:+.2f}") for end in ends(gate))
            line += f"  gate {value} [{low}, {high}]"
        lines.append(line)
    ranked = [row for row in select(table, metric="log_odds_shift") if row["condition"] != "bare"][:5]
    lines.append(f"{'ranked':<12} " + ", ".join(f"{row['condition']} {number(row):+.2f}" for row in ranked))
    cost = [f"{row['condition']} {number(row):.0f} s" for row in select(table, metric="seconds")]
    lines.append(f"{'cost':<12} " + ", ".join(cost))
    if verdict_row["condition"] != "clean":
        lines.append(f"{'next':<12} does closing this context suffice? semcon audit-repair")
    return "\n".join(lines)


ANSWERS: Mapping[str, Callable[[Sequence[Row]], str]] = {
    "em_rate": _behaviour,
    "audit": _audit,
    "geometry": _directions,
    "ablate": _gap_removed,
    "rank_one": _gate_scalars,
    "steer": _dose_response,
    "steer_vector": _vector_response,
    "probe": _probe,
    "probe_apply": _applied_probe,
}
"""How the answer of an experiment is said, by its name; the others print the head of their table."""
