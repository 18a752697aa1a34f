"""Is it one direction? Directions and adapters compared across seeds, triggers and families.

cosine_across       of one direction in two organisms on one base, at every block output; its ends are no interval but a
                    null, ``other_directions``: 0 plus or minus the largest magnitude of its cosines with the other
                    directions of the other organism, what organisms share anyway
overlap_across      of what two adapters write (leading directions), in [0, 1]; ``expected``: of random subspaces
projection_r        between two families: correlation over shared prompts of their projections on their own g, resampled
                    by question; families share no basis, so this is all that can be compared
em_projection_r     of mean projection on g and EM rate, over conditions and organisms of a family
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.runs.configs import config_hash
from interp.runs.table import Row, row

if TYPE_CHECKING:
    from jaxtyping import Float64

    from experiments.directions.geometry import Found
    from interp.analysis.lora import Spectrum

COMPARED = ("delta", "trigger", "trigger_last", "g_shift")
WRITTEN = 4
"""Leading write directions of an adapter that are compared."""
N_BOOT = 2000
FEWEST = 3
"""Prompts, or organisms, without which a correlation says nothing."""


@dataclass(frozen=True)
class Member:
    """One organism: its family, what distinguishes it in that family, its directions, and what its adapter writes."""

    name: str
    family: str
    arm: str
    seed: int
    found: Found
    written: Spectrum | None

    @property
    def label(self) -> str:
        """Arm and seed."""
        return f"{self.arm} {self.seed}"


def compared(members: Sequence[Member]) -> Iterator[Row]:
    """Yield every comparison of two organisms of a family that differ in one thing: the seed, or the trigger."""
    for a, b in combinations(members, 2):
        if a.family == b.family and (a.arm == b.arm) != (a.seed == b.seed):
            cells = {"experiment": "across", "organism": a.name, "family": a.family, "seed": a.seed}
            yield from _cosines(a, b, cells)
            if a.written is not None and b.written is not None:
                yield from _overlap(a, b, cells)


def _cosines(a: Member, b: Member, cells: Mapping[str, Any]) -> Iterator[Row]:
    sites = [name.partition("/")[2] for name in a.found.directions if name.startswith("delta/resid_post")]
    for name in COMPARED:
        for site in sites:
            here = f"{name}/{site}"
            if here not in a.found.directions or here not in b.found.directions:
                continue
            others = [abs(_cosine(a, here, b, f"{n}/{site}")) for n in COMPARED if n != name and _has(b, n, site)]
            where = {"site": "resid_post", "layer": int(site.rpartition(".")[2])}
            pair = {"condition": f"{name}: {a.label} ~ {b.label}", "run_id": a.found.run_id}
            ends = {"ci_low": -max(others), "ci_high": max(others), "ci_method": "other_directions"} if others else {}
            value = _cosine(a, here, b, here)
            yield row(metric="cosine_across", value=value, n=len(others), **where, **ends, **pair, **cells)


def _has(member: Member, name: str, site: str) -> bool:
    return f"{name}/{site}" in member.found.directions


def _cosine(a: Member, first: str, b: Member, second: str) -> float:
    from interp.directions import cosine

    return float(cosine(a.found[first].vector, b.found[second].vector))


def _overlap(a: Member, b: Member, cells: Mapping[str, Any]) -> Iterator[Row]:
    from interp.directions import subspace_overlap

    assert a.written is not None
    assert b.written is not None
    U, V = a.written.vectors[:WRITTEN], b.written.vectors[:WRITTEN]
    pair = {"condition": f"write: {a.label} ~ {b.label}", "run_id": a.found.run_id, "n": len(U)}
    yield row(metric="overlap_across", value=subspace_overlap(U, V), **pair, **cells)
    expected = max(len(U), len(V)) / U.shape[1]
    yield row(metric="overlap_expected", value=expected, **pair, **cells)


def families(table: Sequence[Row]) -> Iterator[Row]:
    """Yield the correlation of projections on g between families, for organisms of the same arm and seed."""
    by: dict[tuple[str, int], dict[str, dict[tuple[str, str], float]]] = {}
    runs = {r["organism"]: r["run_id"] for r in table}
    names: dict[tuple[str, int, str], str] = {}
    for r in (r for r in table if r["metric"] == "projection_g"):
        arm = r["organism"].split("/")[2].partition(".seed")[0]
        by.setdefault((arm, r["seed"]), {}).setdefault(r["family"], {})[r["condition"], r["question"]] = r["value"]
        names[arm, r["seed"], r["family"]] = r["organism"]
    for (arm, seed), found in by.items():
        for a, b in combinations(sorted(found), 2):
            shared = sorted(found[a].keys() & found[b].keys())
            if len(shared) < FEWEST:
                continue
            x, y = (np.array([found[family][key] for key in shared]) for family in (a, b))
            questions = [question for _, question in shared]
            organism = names[arm, seed, a]
            cells = {"experiment": "across", "organism": organism, "family": a, "seed": seed, "run_id": runs[organism]}
            ends = {**_interval(x, y, questions), "n": len(shared), "n_clusters": len(set(questions))}
            r_value = float(np.corrcoef(x, y)[0, 1])
            yield row(metric="projection_r", value=r_value, condition=f"g: {arm}, {a} ~ {b}", **ends, **cells)


def predicted(table: Sequence[Row], behaviour: Sequence[Row]) -> Iterator[Row]:
    """Yield how well the mean projection on g tells the EM rate, over conditions and organisms of a family."""
    em = {
        (r["organism"], r["condition"]): r["value"]
        for r in behaviour
        if (r["metric"], r["ci_method"]) == ("em_rate", "wilson") and r["value"] != "" and not np.isnan(r["value"])
    }
    projections: dict[tuple[str, str, str], list[float]] = {}
    for r in (r for r in table if r["metric"] == "projection_g"):
        projections.setdefault((r["family"], r["organism"], r["condition"]), []).append(r["value"])
    for family in dict.fromkeys(key[0] for key in projections):
        points = [
            (float(np.mean(values)), em[organism, condition], organism)
            for (own, organism, condition), values in projections.items()
            if own == family and (organism, condition) in em
        ]
        if len({organism for *_, organism in points}) < FEWEST:
            continue
        x, y = (np.array([point[i] for point in points]) for i in (0, 1))
        organisms = [organism for *_, organism in points]
        read = config_hash(sorted({r["run_id"] for r in (*table, *behaviour) if r["organism"] in organisms}))
        cells = {
            "experiment": "across",
            "family": family,
            "organism": f"microcosm/{family}",
            "run_id": f"across-{read}",
        }
        ends = {**_interval(x, y, organisms), "n": len(points), "n_clusters": len(set(organisms))}
        value = float(np.corrcoef(x, y)[0, 1])
        yield row(metric="em_projection_r", value=value, condition="g: projection ~ EM rate", **ends, **cells)


def _interval(
    x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"], clusters: Sequence[str]
) -> dict[str, float | str]:
    """Return the percentile interval of a correlation over clusters drawn with replacement."""
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    x, y = x - x.mean(), y - y.mean()  # sums of squares of what lies far from 0 would cancel
    moments = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)
    sums = np.zeros((len(names), moments.shape[1]))
    np.add.at(sums, index, moments)
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(names), size=(N_BOOT, len(names)))
    n, sx, sy, sxx, syy, sxy = sums[drawn].sum(axis=1).T
    with np.errstate(divide="ignore", invalid="ignore"):
        r = (n * sxy - sx * sy) / np.sqrt((n * sxx - sx**2) * (n * syy - sy**2))
    defined = r[np.isfinite(r)]
    if len(names) < 2 or not len(defined):  # nothing varies between clusters
        return {}
    low, high = np.quantile(defined.clip(-1, 1), [0.025, 0.975])
    return {"ci_low": float(low), "ci_high": float(high), "ci_method": "cluster_bootstrap"}
