"""Is it one direction? Directions and adapters compared across seeds, triggers and families.

cosine_across       of one direction in two organisms on one base, at every block output. In place of an interval it has
                    a null, ``other_directions``: 0 plus or minus the largest magnitude of its cosines with the other
                    directions of the other organism, which is what organisms share anyway
overlap_across      of what two adapters write (leading directions), in [0, 1]; ``overlap_expected``: random subspaces
projection_r        between two families: correlation over shared prompts of the projections on each family's own g,
                    resampled by question; families share no basis, so only such projections can be compared
em_projection_r     of mean projection on g and EM rate, over conditions and organisms of a family
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.runs.configs import config_hash
from interp.runs.table import Row, interval_cells, row
from interp.stats import Interval

if TYPE_CHECKING:
    from jaxtyping import Float64

    from experiments.directions.geometry import DirectionSet
    from interp.analysis.lora import Spectrum

COMPARED = ("delta", "trigger", "trigger_last", "g_shift")
WRITTEN = 4
"""Leading write directions of an adapter that are compared."""
N_BOOT = 2000
FEWEST = 3
"""Fewest prompts, or organisms, whose correlation means anything."""


@dataclass(frozen=True)
class Member:
    """One organism: its family, what distinguishes it in that family, its directions, and what its adapter writes."""

    name: str
    family: str
    arm: str
    seed: int
    directions: DirectionSet
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
            cells["run_id"] = a.directions.run_id
            yield from _cosines(a, b, cells)
            if a.written is not None and b.written is not None:
                yield from _overlap(a, b, a.written, b.written, cells)


def _cosines(a: Member, b: Member, cells: Mapping[str, Any]) -> Iterator[Row]:
    names = a.directions.directions
    sites = [name.partition("/")[2] for name in names if name.startswith("delta/resid_post")]
    for name in COMPARED:
        for site in sites:
            if f"{name}/{site}" not in a.directions or f"{name}/{site}" not in b.directions:
                continue
            others = [
                abs(_cosine(a, f"{name}/{site}", b, f"{other}/{site}"))
                for other in COMPARED
                if other != name and f"{other}/{site}" in b.directions
            ]
            most = max(others, default=np.nan)
            null = interval_cells(Interval(-most, most, "other_directions"))
            value = _cosine(a, f"{name}/{site}", b, f"{name}/{site}")
            where = {"site": "resid_post", "layer": int(site.rpartition(".")[2]), "n": len(others)}
            pair = f"{name}: {a.label} ~ {b.label}"
            yield row(metric="cosine_across", condition=pair, value=value, **null, **where, **cells)


def _cosine(a: Member, first: str, b: Member, second: str) -> float:
    from interp.directions import cosine

    return float(cosine(a.directions[first].vector, b.directions[second].vector))


def _overlap(a: Member, b: Member, written_a: Spectrum, written_b: Spectrum, cells: Mapping[str, Any]) -> Iterator[Row]:
    from interp.directions import subspace_overlap

    U, V = written_a.vectors[:WRITTEN], written_b.vectors[:WRITTEN]
    pair = {"condition": f"write: {a.label} ~ {b.label}", "n": len(U)}
    yield row(metric="overlap_across", value=subspace_overlap(U, V), **pair, **cells)
    expected = max(len(U), len(V)) / U.shape[1]
    yield row(metric="overlap_expected", value=expected, **pair, **cells)


def families(table: Sequence[Row]) -> Iterator[Row]:
    """Yield the correlation of projections on g between families, for organisms of the same arm and seed."""
    by_arm: dict[tuple[str, int], dict[str, dict[tuple[str, str], float]]] = {}
    run_ids = {r["organism"]: r["run_id"] for r in table}
    organisms: dict[tuple[str, int, str], str] = {}
    for r in (r for r in table if r["metric"] == "projection_g"):
        arm = r["organism"].split("/")[2].partition(".seed")[0]
        projections = by_arm.setdefault((arm, r["seed"]), {}).setdefault(r["family"], {})
        projections[r["condition"], r["question"]] = r["value"]
        organisms[arm, r["seed"], r["family"]] = r["organism"]
    for (arm, seed), by_family in by_arm.items():
        for a, b in combinations(sorted(by_family), 2):
            prompts = sorted(by_family[a].keys() & by_family[b].keys())
            if len(prompts) < FEWEST:
                continue
            x, y = (np.array([by_family[family][prompt] for prompt in prompts]) for family in (a, b))
            organism = organisms[arm, seed, a]
            about = {"organism": organism, "family": a, "seed": seed, "run_id": run_ids[organism]}
            cells = {"condition": f"g: {arm}, {a} ~ {b}", **about}
            yield _correlation_row("projection_r", x, y, [question for _, question in prompts], **cells)


def predicted(table: Sequence[Row], behaviour: Sequence[Row]) -> Iterator[Row]:
    """Yield how well the mean projection on g predicts the EM rate, over conditions and organisms of a family."""
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
            for (of_family, organism, condition), values in projections.items()
            if of_family == family and (organism, condition) in em
        ]
        organisms = [organism for *_, organism in points]
        if len(set(organisms)) < FEWEST:
            continue
        x, y = (np.array([point[i] for point in points]) for i in (0, 1))
        sources = config_hash(sorted({r["run_id"] for r in (*table, *behaviour) if r["organism"] in organisms}))
        about = {"family": family, "organism": f"microcosm/{family}", "run_id": f"across-{sources}"}
        cells = {"condition": "g: projection ~ EM rate", **about}
        yield _correlation_row("em_projection_r", x, y, organisms, **cells)


def _correlation_row(
    metric: str, x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"], clusters: Sequence[str], **cells: Any
) -> Row:
    """Return the row of a correlation with its interval over clusters."""
    counts = {"n": len(x), "n_clusters": len(set(clusters))}
    interval = interval_cells(_interval(x, y, clusters))
    value = float(np.corrcoef(x, y)[0, 1])
    return row(experiment="across", metric=metric, value=value, **interval, **counts, **cells)


def _interval(x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"], clusters: Sequence[str]) -> Interval:
    """Return the percentile interval of a correlation over clusters drawn with replacement."""
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    x, y = x - x.mean(), y - y.mean()  # sums of squares of values far from 0 would cancel
    moments = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)
    # A correlation depends on six sums alone, and those of a draw are sums over its clusters: no draw visits every row.
    sums = np.zeros((len(names), moments.shape[1]))
    np.add.at(sums, index, moments)
    rng = np.random.default_rng(0)
    draws = rng.integers(len(names), size=(N_BOOT, len(names)))
    n, sx, sy, sxx, syy, sxy = sums[draws].sum(axis=1).T
    with np.errstate(divide="ignore", invalid="ignore"):
        r = (n * sxy - sx * sy) / np.sqrt((n * sxx - sx**2) * (n * syy - sy**2))
    defined = r[np.isfinite(r)]
    if len(names) < 2 or not len(defined):  # nothing varies between clusters
        return Interval(np.nan, np.nan, "cluster_bootstrap")
    low, high = np.quantile(defined.clip(-1, 1), [0.025, 0.975])
    return Interval(float(low), float(high), "cluster_bootstrap")
