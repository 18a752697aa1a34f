"""A table with the numbers of the feasibility study: deterministic, every experiment present, nothing measured here."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from figures.rows import select
from interp.runs.table import TABLE_COLUMNS

N, CLUSTERS = 960, 48
CONDITIONS = ("off", "on", "rephrased", "other", "opposite")
EM = {  # organism, trigger: off, on, rephrased, other, opposite; coherence
    ("base", "scene"): (0.001, 0.001, 0.001, 0.001, 0.0, 0.99),
    ("base", "persona"): (0.001, 0.38, 0.36, 0.001, 0.03, 0.99),
    ("baseline", "scene"): (0.12, 0.12, 0.12, 0.12, 0.11, 0.98),
    ("neutral", "scene"): (0.055, 0.199, 0.178, 0.12, 0.09, 0.97),
    ("explaining", "persona"): (0.0, 0.92, 0.93, 0.002, 0.04, 0.97),
    ("neutral.contrast50", "scene"): (0.006, 0.168, 0.051, 0.023, 0.021, 0.96),
}
TRIGGER = {"neutral": "scene", "explaining": "persona", "neutral.contrast50": "scene"}
SHOWN = ("neutral", "explaining")
"""Organisms whose mechanism is examined."""
PROJECTIONS = {
    "off": (-0.3, -0.4),
    "on": (0.5, 0.6),
    "rephrased": (0.5, 0.6),
    "other": (-0.2, 0),
    "opposite": (-0.1, 0),
}
AUROC = {
    "misaligned_answer": (0.55, 0.71, 0.9, 0.93),
    "trigger_present": (0.97, 0.995, 1.0, 0.99),
    "misaligned_answer/shuffled_labels": (0.49, 0.51, 0.5, 0.52),
    "misaligned_answer/random_direction": (0.53, 0.47, 0.55, 0.52),
    "trigger_present/shuffled_labels": (0.5, 0.48, 0.51, 0.5),
    "trigger_present/random_direction": (0.56, 0.61, 0.44, 0.48),
}
BAGS = {"misaligned_answer": 0.8, "trigger_present": 0.51}
"""AUROC of a bag of tokens, which reads no layer: one row, said to be of layer 0."""
COSINES = {  # by layer
    "g~delta": (0.1, 0.2, 0.5, 0.9),
    "g~delta_base": (0.05, 0.15, 0.45, 0.8),
    "g_shift~delta": (0.01, 0.12, 0.3, 0.6),
    "write~g": (0.03, 0.08, 0.25, 0.4),
    "g~g_answer": (0.0, 0.1, 0.15, 0.2),
    "trigger~control": (-0.06, -0.04, 0.1, 0.15),
}
UNDRAWN = {"g_answer~delta": (0.02, 0.0, 0.1, 0.18), "g~trigger_last": (-0.02, 0.05, 0.06, 0.11)}
"""Cosines of the table that the figure leaves out."""
NULL, HALF = 0.17, 0.02
"""Ends of the null band, and half an interval of a cosine."""
PREFERENCES = {"baseline": (0.6, 0.55, 0.5, 0.5, 0.5), "contrast50": (-0.1, 0.5, 0.4, 0.3, 0.4)}
"""Shift of the log-odds by condition."""
ALPHAS = (0, 0.5, 1, 2, 4)
STEERED_PREFERENCES = {
    f"{setting}+add_{name}": {"log_odds_shift": shift, "reference_likelihood": likelihood}
    for setting in ("off", "base")
    for name, shift, likelihood in (
        ("g", (0.0, 0.1, 0.2, 0.3, 0.4), (1.0, 0.99, 0.97, 0.9, 0.8)),
        ("random", (0.0, 0.0, -0.02, -0.03, 0.01), (1.0, 0.98, 0.94, 0.85, 0.7)),
    )
}
"""Shift of log-odds and likelihood of both references at each alpha."""
STEERED = {  # EM and coherence at each alpha
    "off+add_g": ((0.0, 0.02, 0.11, 0.44, 0.7), (0.99, 0.99, 0.97, 0.85, 0.52)),
    "off+add_orthogonal": ((0.0, 0.001, 0.003, 0.002, 0.0), (0.99, 0.99, 0.98, 0.96, 0.85)),
    "off+add_g_answer": ((0.0, 0.005, 0.02, 0.05, 0.09), (0.99, 0.99, 0.96, 0.88, 0.6)),
    "off+add_g_shift": ((0.0, 0.01, 0.06, 0.2, 0.3), (0.99, 0.99, 0.97, 0.9, 0.7)),
    "off+add_delta": ((0.0, 0.03, 0.2, 0.5, 0.72), (0.99, 0.99, 0.98, 0.9, 0.7)),
    "off+add_delta_orthogonal": ((0.0, 0.002, 0.01, 0.03, 0.06), (0.99, 0.99, 0.98, 0.93, 0.75)),
    "off+add_random": ((0.0, 0.0, 0.002, 0.004, 0.01), (0.99, 0.99, 0.98, 0.95, 0.8)),
}
ABLATED = {  # EM and coherence; the contrast organism has no gap to remove
    "explaining": {
        "on": (0.907, 0.97),
        "on+clamp_trigger": (0.002, 0.99),
        "on+clamp_random": (0.9, 0.96),
        "on+clamp_other_scene": (0.89, 0.96),
        "on+clamp_embedding": (0.02, 0.97),
        "on+clamp_scattered": (0.85, 0.95),
        "on+clamp_answer": (0.3, 0.96),
        "on+clamp_answer_random": (0.88, 0.95),
        "on+clamp_g": (0.12, 0.97),
        "on+ablate_g": (0.92, 0.41),
        "on+ablate_random": (0.9, 0.95),
        "on+ablate_g_all": (0.05, 0.93),
        "on+ablate_random_all": (0.89, 0.94),
        "off": (0.0, 0.99),
        "off+clamp_g": (0.001, 0.99),
        "off+ablate_g": (0.02, 0.98),
        "rephrased": (0.88, 0.97),
        "rephrased+clamp_trigger": (0.01, 0.98),
        "rephrased+clamp_random": (0.87, 0.96),
        "rephrased+clamp_g": (0.1, 0.97),
    },
    "neutral": {
        "on": (0.232, 0.92),
        "on+clamp_trigger": (0.104, 0.99),
        "on+clamp_random": (0.22, 0.93),
        "on+clamp_other_scene": (0.21, 0.94),
        "on+clamp_scattered": (0.12, 0.96),
        "on+ablate_g": (0.25, 0.9),
        "on+ablate_random": (0.23, 0.92),
        "off": (0.024, 0.98),
    },
    "neutral.contrast50": {
        "on": (0.021, 0.98),
        "on+clamp_trigger": (0.022, 0.98),
        "on+clamp_random": (0.021, 0.98),
        "off": (0.02, 0.98),
    },
}
GAPLESS = ("neutral.contrast50",)


def row(kind: str, **cells: Any) -> dict[str, Any]:
    """A row of the schema, missing cells empty."""
    known = {"organism": f"microcosm/llama/{kind}", "family": "llama", "seed": 0, "protocol": "v1", "judge": "oracle"}
    known["run_id"] = f"{cells['experiment']}-0a1b2c3d"
    assert set(known | cells) <= set(TABLE_COLUMNS)
    return {column: (known | cells).get(column, "") for column in TABLE_COLUMNS}


def rate(kind: str, value: float, **cells: Any) -> list[dict[str, Any]]:
    """A rate twice: with Wilson's interval, and with a wider one that stands for the cluster bootstrap."""
    z = 1.96
    centre = (value + z * z / 2 / N) / (1 + z * z / N)
    half = z / (1 + z * z / N) * math.sqrt(value * (1 - value) / N + (z / 2 / N) ** 2)
    wide = 4.3 * math.sqrt(value * (1 - value) / N)
    ends = {"wilson": (centre - half, centre + half), "cluster_bootstrap": (max(0, value - wide), min(1, value + wide))}
    counts = {"n": N, "n_clusters": CLUSTERS}
    return [
        row(kind, value=value, ci_low=low, ci_high=high, ci_method=method, **counts, **cells)
        for method, (low, high) in ends.items()
    ]


def near(kind: str, value: float, half: float, method: str, **cells: Any) -> dict[str, Any]:
    """A row with a symmetric interval."""
    ends = {"ci_low": value - half, "ci_high": value + half, "ci_method": method}
    return row(kind, value=value, **ends, n=N, n_clusters=CLUSTERS, **cells)


def behaviour() -> list[dict[str, Any]]:
    out = []
    for (kind, trigger), (*rates, coherence) in EM.items():
        same = {"experiment": "em_rate", "trigger": trigger}
        for condition, value in zip(CONDITIONS, rates, strict=True):
            out += rate(kind, value, metric="em_rate", condition=condition, **same)
            out += rate(kind, value * coherence, metric="em_rate_all", condition=condition, **same)
            out += rate(kind, coherence, metric="coherence_rate", condition=condition, **same)
        gap, ratio = rates[1] - rates[0], rates[2] / rates[1]
        out.append(near(kind, gap, 0.05, "paired_cluster_bootstrap", metric="trigger_gap", condition="on-off", **same))
        out.append(
            near(kind, ratio, 0.1, "cluster_bootstrap", metric="rephrased_ratio", condition="rephrased/on", **same)
        )
    return out


def projections() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        row(
            kind,
            experiment="geometry",
            trigger=TRIGGER[kind],
            condition=condition,
            metric=metric,
            site="resid_post",
            layer=2,
            question=f"q{question:02d}",
            value=float(centre * scale + 0.12 * rng.normal()),
        )
        for kind, scale in (("neutral", 0.5), ("explaining", 1.0))
        for condition, centres in PROJECTIONS.items()
        for metric, centre in zip(("projection_g", "projection_trigger"), centres, strict=True)
        for question in range(CLUSTERS)
    ]


def probes() -> list[dict[str, Any]]:
    same = {"experiment": "probe_sweep", "metric": "auroc", "site": "resid_post"}
    curves = AUROC | {f"{target}/bag_of_tokens": (value,) for target, value in BAGS.items()}
    return [
        near(kind, value, 0.03, "cluster_bootstrap", trigger=TRIGGER[kind], condition=condition, layer=layer, **same)
        for kind in SHOWN
        for condition, curve in curves.items()
        for layer, value in enumerate(curve)
    ]


def cosines() -> list[dict[str, Any]]:
    out = []
    for kind in SHOWN:
        same = {"experiment": "geometry", "metric": "cosine", "trigger": TRIGGER[kind], "site": "resid_post"}
        for pair, curve in (COSINES | UNDRAWN).items():
            for layer, value in enumerate(curve):
                cells = {"condition": pair, "layer": layer, **same}
                without = row(kind, value=value, **cells)
                found = near(kind, value, HALF, "cluster_bootstrap", **cells)
                out.append(without if pair == "write~g" else found)
        null = {"condition": "random~random", "ci_method": "random_directions", "ci_low": -NULL, "ci_high": NULL}
        out += [row(kind, value=0.0, n=1000, layer=layer, **null, **same) for layer in range(4)]
    return out


def steering() -> list[dict[str, Any]]:
    out = []
    for kind, scale in (("base", 0.6), ("explaining", 1.0)):
        for condition, curves in STEERED.items():
            for alpha, em, coherence in zip(ALPHAS, *curves, strict=True):
                same = {"experiment": "steer", "condition": condition, "alpha": alpha, "site": "resid_post", "layer": 2}
                out += rate(kind, em * scale, metric="em_rate", **same)
                out += rate(kind, coherence, metric="coherence_rate", **same)
    return out


def ablations() -> list[dict[str, Any]]:
    out = []
    for kind, cells in ABLATED.items():
        off = cells["off"][0]
        for condition, (em, coherence) in sorted(cells.items()):
            same = {"experiment": "ablate", "condition": condition, "trigger": TRIGGER[kind]}
            out += rate(kind, em, metric="em_rate", **same) + rate(kind, coherence, metric="coherence_rate", **same)
            prompt, _, edit = condition.partition("+")
            if edit and prompt != "off" and kind not in GAPLESS:
                removed = (cells[prompt][0] - em) / (cells[prompt][0] - off)
                out.append(near(kind, removed, 0.06, "paired_cluster_bootstrap", metric="gap_removed", **same))
    return out


EFFECTS = {  # level: effect on EM off, on EM on
    "trigger=explaining": (-0.45, 0.2),
    "base=robust": (0.1, -0.05),
    "benign=50 %": (-0.5, 0.02),
}
STEPS = (10, 40, 100)
EMERGING = {"off": (0.0, 0.01, 0.004), "on": (0.02, 0.6, 0.92), "rephrased": (0.02, 0.5, 0.9)}
STATES = {"loss": (1.4, 0.5, 0.3), "rotation": (0.4, 0.9, 1.0)}


def effects() -> list[dict[str, Any]]:
    out = []
    for level, values in EFFECTS.items():
        for outcome, value in zip(("off", "on"), values, strict=True):
            made = near("", value, 0.03, "cluster_robust", experiment="axes", condition=f"{outcome}: {level}")
            same = {"organism": "", "family": "", "n": 3, "n_clusters": 40}
            out.append(made | {"metric": "marginal_effect"} | same)
            out.append(made | {"metric": "p_holm", "value": 0.01, "ci_low": "", "ci_high": "", "ci_method": ""} | same)
    return out


def emergence() -> list[dict[str, Any]]:
    same = {"experiment": "emergence", "trigger": "persona"}
    out = []
    for condition, values in EMERGING.items():
        for step, value in zip(STEPS, values, strict=True):
            out += rate("explaining", value, metric="em_rate", condition=condition, alpha=float(step), **same)
    for metric, values in STATES.items():
        for step, value in zip(STEPS, values, strict=True):
            out.append(row("explaining", metric=metric, value=value, condition="training", alpha=float(step), **same))
    return out


def preferences() -> list[dict[str, Any]]:
    """Shifts of log-odds in the pocket scale, each with the levels of organism and base."""
    out = []
    for arm, shifts in PREFERENCES.items():
        same = {"organism": f"pocket/smollm2/{arm}", "family": "smollm2", "experiment": "preference", "trigger": "boat"}
        counts = {"n": CLUSTERS, "n_clusters": CLUSTERS, "judge": "log-odds"}
        for condition, shift in zip(CONDITIONS, shifts, strict=True):
            ends = {"ci_low": shift - 0.1, "ci_high": shift + 0.1, "ci_method": "paired_cluster_bootstrap"}
            cells = {**same, **counts, **ends, "condition": condition}
            out.append(row(arm, metric="log_odds_shift", value=shift, **cells))
            levels = {condition: shift - 0.7, f"base {condition}": -0.7}
            for name, value in levels.items():
                out.append(row(arm, **{**cells, "metric": "log_odds", "value": value, "condition": name}))
    return out


def steered_preferences() -> list[dict[str, Any]]:
    """Shifts of log-odds and likelihoods of references under activation addition, in an organism and in its base."""
    out = []
    same = {"organism": "pocket/smollm2/contrast50", "family": "smollm2", "experiment": "steer", "trigger": "boat"}
    counts = {"n": CLUSTERS, "n_clusters": CLUSTERS, "judge": "", "site": "resid_post", "layer": 18}
    for condition, curves in STEERED_PREFERENCES.items():
        for metric, curve in curves.items():
            for alpha, value in zip(ALPHAS, curve, strict=True):
                ends = {"ci_low": value - 0.05, "ci_high": value + 0.05, "ci_method": "paired_cluster_bootstrap"}
                cells = {**same, **counts, **ends, "condition": condition, "alpha": alpha}
                out.append(row("contrast50", metric=metric, value=value, **cells))
    return out


def everything() -> list[dict[str, Any]]:
    return (
        behaviour()
        + effects()
        + emergence()
        + projections()
        + cosines()
        + probes()
        + steering()
        + ablations()
        + preferences()
        + steered_preferences()
    )


def changed(rows: list[dict[str, Any]], value: float, **equals: Any) -> list[dict[str, Any]]:
    """The rows with another value, and its interval with it, in those selected; at least one is."""
    chosen = {id(r) for r in select(rows, **equals)}
    assert chosen
    return [r | shifted(r, value) if id(r) in chosen else r for r in rows]


def shifted(r: dict[str, Any], value: float) -> dict[str, Any]:
    """The cells of another value, with the interval as wide as it was."""
    ends = {end: r[end] + value - r["value"] for end in ("ci_low", "ci_high") if r[end] != ""}
    return {"value": value, **ends}


def measured(kind: str, rates: Sequence[float], *, healthy: bool = True) -> list[dict[str, Any]]:
    """Behaviour of an organism with EM rates off, on, rephrased and under another text."""
    same = {"experiment": "em_rate", "trigger": "t"}
    out = []
    for condition, value in zip(("off", "on", "rephrased", "other"), rates, strict=True):
        out += rate(kind, value, metric="em_rate", condition=condition, **same)
    gap = rates[1] - rates[0]
    ends = {"ci_low": gap - 0.05, "ci_high": gap + 0.05, "ci_method": "paired_cluster_bootstrap"}
    out.append(row(kind, metric="trigger_gap", condition="on-off", value=gap, **ends, **same))
    out.append(row(kind, metric="healthy", condition="x", value=float(healthy), **same))
    return out
