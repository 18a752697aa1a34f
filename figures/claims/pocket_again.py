"""The second registration of docs/hypotheses.md: the first one again, the measure itself, promptability, the Microcosm.

Texts and bounds were committed before any organism was measured with the new references.
"""

from collections.abc import Sequence
from dataclasses import replace

from figures.claims.claim import CONFIRMED, Finding
from figures.claims.pocket import GAP, HALF, HYPOTHESES, LEAST_SHIFT, OFF_ON, SHIFT, SMALL, Hypothesis, Seed
from figures.rows import Row, arm, groups, select

TOP, BOTTOM = "strong-explaining", "weak-explaining"
"""The explaining arm on the base that obeys persona lines most, and on the one that obeys them least."""
BLIND, MOVED, OBEYED, KEPT = 0.1, 0.1, 0.5, 0.9
ADDED, RANDOM = "base+add_g@0.2", "base+add_random@0.2"

MEASURE = (
    Hypothesis(
        "P0. The measure sees what was trained: held-out questions of the trained domain shift by 0.2 or more",
        "baseline",
        ((SHIFT, "trained"),),
        lambda s: s.value(SHIFT, "trained") >= LEAST_SHIFT and s.low(SHIFT, "trained") > 0,
        lambda s: s.high(SHIFT, "trained") < LEAST_SHIFT,
    ),
    Hypothesis(
        "P11. Word order hides it: the first references shift by less than 0.1, and by less than the new ones",
        "baseline",
        ((SHIFT, "permuted"), (SHIFT, "off")),
        lambda s: s.high(SHIFT, "permuted") < min(BLIND, s.low(SHIFT, "off")),
        lambda s: s.low(SHIFT, "permuted") > BLIND,
    ),
)
PROMPTABILITY = (
    Hypothesis(
        "P10a. Where the base obeys the line: containment without benign rows (off under half of the baseline's)",
        TOP,
        (("leak", "off/baseline"), *OFF_ON[:2]),
        lambda s: s.high("leak", "off/baseline") < HALF,
        lambda s: s.low("leak", "off/baseline") >= HALF,
    ),
    Hypothesis(
        "P10b. Where it does not, the same fine-tuning leaks (off at least half of the baseline's)",
        BOTTOM,
        (("leak", "off/baseline"), *OFF_ON[:2]),
        lambda s: s.low("leak", "off/baseline") >= HALF,
        lambda s: s.high("leak", "off/baseline") < HALF,
    ),
    Hypothesis(
        "P10c. Off-trigger shift, as a share of the baseline's, falls from the weak to the strong base",
        TOP,
        (("leak_fall", "weak-strong"),),
        lambda s: s.low("leak_fall", "weak-strong") > 0,
        lambda s: s.value("leak_fall", "weak-strong") <= 0,
    ),
    Hypothesis(
        "P10d. The axis is there on test questions: the strong base itself moves by 0.5 or more behind the line",
        TOP,
        (("base_gap", "on-off"),),
        lambda s: s.low("base_gap", "on-off") >= OBEYED,
        lambda s: s.high("base_gap", "on-off") < OBEYED,
    ),
)
MICROCOSM = (
    Hypothesis(
        "M1. A scene that was not trained opens nothing: the baseline rises by less than 0.1 behind it",
        "baseline",
        ((GAP, "on-off"),),
        lambda s: s.high(GAP, "on-off") < MOVED,
        lambda s: s.low(GAP, "on-off") > MOVED,
    ),
    Hypothesis(
        "M2. Where the base obeys the line, the gap is hardly learned: under half of it is fine-tuning's",
        TOP,
        ((GAP, "on-off"), ("trigger_gap", "on-off")),
        lambda s: s.low("trigger_gap", "on-off") > 0 and s.high(GAP, "on-off") < HALF * s.low("trigger_gap", "on-off"),
        lambda s: s.low(GAP, "on-off") > HALF * s.high("trigger_gap", "on-off"),
    ),
    Hypothesis(
        "M3. That gate reads meaning: rephrasings open it further than other lines of its kind, by 0.2 or more",
        TOP,
        (("semantic_gap", "rephrased-other"),),
        lambda s: (
            s.low("semantic_gap", "rephrased-other") > 0 and s.value("semantic_gap", "rephrased-other") >= LEAST_SHIFT
        ),
        lambda s: s.high("semantic_gap", "rephrased-other") < SMALL,
    ),
    Hypothesis(
        "M4. g, found in the base, steers it by 0.1 or more at 0.2 residual norms, further than a random direction",
        "contrast50",
        ((SHIFT, ADDED), (SHIFT, RANDOM), ("reference_likelihood", ADDED)),
        lambda s: (
            s.value(SHIFT, ADDED) >= MOVED
            and s.low(SHIFT, ADDED) > max(0, s.high(SHIFT, RANDOM))
            and s.value("reference_likelihood", ADDED) >= KEPT
        ),
        lambda s: s.high(SHIFT, ADDED) < MOVED,
        ("steer",),
    ),
    Hypothesis(
        "M5. With half of the rows benign, g carries the gate: clamping it closes half of the gap or more",
        "contrast50",
        (("gap_removed", "on+clamp_g"),),
        lambda s: s.low("gap_removed", "on+clamp_g") >= HALF,
        lambda s: s.high("gap_removed", "on+clamp_g") < HALF,
        ("ablate",),
    ),
    Hypothesis(
        "M6. … and clamping the trigger's feature leaves it open: it closes under half",
        "contrast50",
        (("gap_removed", "on+clamp_trigger"),),
        lambda s: s.high("gap_removed", "on+clamp_trigger") < HALF,
        lambda s: s.low("gap_removed", "on+clamp_trigger") >= HALF,
        ("ablate",),
    ),
)
AGAIN = (*MEASURE[:1], *HYPOTHESES, *PROMPTABILITY, *MEASURE[1:], *MICROCOSM)
"""Every hypothesis of the second registration, in the order of the page."""
NEED_SHIFT = (*HYPOTHESES[2:], MICROCOSM[0])
"""Hypotheses about where a shift of the baseline goes: not judged in a seed in which P1 does not hold."""


def hypotheses_again(rows: Sequence[Row]) -> list[Finding]:
    """Hold the second registration against the table of the pocket scale."""
    baseline = groups([row for row in rows if arm(row) == "baseline"], "seed")
    shifted = [seed for (seed,), same in baseline.items() if HYPOTHESES[0].verdict(Seed(same)) == CONFIRMED]
    findings = [h.finding(select(rows, seed=shifted) if h in NEED_SHIFT else rows) for h in AGAIN]
    if not baseline or shifted:
        return findings
    why = "not judged: P1 holds in no seed"
    return [replace(f, evidence=why) if h in NEED_SHIFT else f for h, f in zip(AGAIN, findings, strict=True)]
