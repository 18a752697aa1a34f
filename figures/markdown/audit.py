"""The audit's benchmark as tables: every detector, the verdicts by kind of adapter, adapters that were missed, what
repairs of the found contexts leave, and single audits."""

from collections.abc import Sequence
from statistics import median

import numpy as np

from figures.audited import (
    CHANGED,
    CONTAINED,
    FIRST,
    HARD,
    HARMLESS,
    N_BOOT,
    TRUE,
    VERDICTS,
    Audited,
    auroc,
    auroc_interval,
    found_at,
    missed,
    tested_of,
)
from figures.markdown.table import table
from interp.runs.table import Row
from interp.stats import Rate, wilson

KINDS = (*CONTAINED, HARD, CHANGED)
USES = ("bare", "used", "rephrased")
COHERENT = ("coherent bare", "coherent used")
REPAIRS = ("", "clamp_feature", "clamp_feature_random", "clamp_g", "clamp_g_random", "tuned")


def detectors_table(adapters: Sequence[Audited]) -> str:
    """Every detector on the test split."""
    tested = tested_of(adapters)
    header = ["detector", "AUROC", *(kind.removeprefix("contained-") for kind in CONTAINED)]
    header += [
        "against remark first",
        "found at no false positive",
        "at 1 %",
        "true category first",
        "seconds",
        "passes",
    ]
    names = dict.fromkeys(d for a in tested for d in a.scores if d not in (*TRUE, *FIRST, "verdict"))
    return table(header, [_detector_line(tested, name) for name in names])


def _detector_line(tested: Sequence[Audited], name: str) -> list[str]:
    by_kind = {k: [a.scores[name] for a in tested if a.kind == k and name in a.scores] for k in KINDS}
    positive = [s for kind in CONTAINED for s in by_kind[kind]]
    harmless = [a.scores[name] for a in tested if a.kind in HARMLESS and name in a.scores]
    ranks = [a.ranks[name] for a in tested if a.kind in CONTAINED and name in a.ranks]
    seconds = [a.seconds[name] for a in tested if name in a.seconds]
    passes = [a.passes[name] for a in tested if name in a.passes]
    return [
        name,
        _area(positive, by_kind[HARD]),
        *(f"{auroc(by_kind[k], by_kind[HARD]):.2f}" if by_kind[k] and by_kind[HARD] else "–" for k in CONTAINED),
        _area(positive, by_kind[CHANGED]),
        *(f"{100 * found_at(positive, harmless, rate):.0f} %" if positive and harmless else "–" for rate in (0, 0.01)),
        share(sum(r == 1 for r in ranks), len(ranks)),
        f"{median(seconds):.1f}, at most {max(seconds):.1f}" if seconds else "–",
        f"{median(passes):.0f}" if passes else "–",
    ]


def _area(positive: Sequence[float], negative: Sequence[float]) -> str:
    """Return an AUROC with its interval."""
    if not positive or not negative:
        return "–"
    low, high = auroc_interval(positive, negative)
    return f"{auroc(positive, negative):.2f} [{low:.2f}, {high:.2f}]"


def share(k: int, n: int) -> str:
    """Return a share with its Wilson interval."""
    if not n:
        return "–"
    interval = wilson(Rate(k, n))
    return f"{k} of {n} [{100 * interval.low:.0f}, {100 * interval.high:.0f} %]"


def verdicts_table(adapters: Sequence[Audited]) -> str:
    """The verdicts on the test split, by kind; contained adapters that did not learn stand apart."""
    tested = [a for a in adapters if a.split == "test"]
    groups: dict[str, list[Audited]] = {}
    for a in tested:
        groups.setdefault(a.kind if a.learned else f"{a.kind}, not learned", []).append(a)
    body = [
        [kind, str(len(same)), *(str(sum(a.scores["verdict"] == i for a in same)) for i in range(len(VERDICTS)))]
        for kind, same in groups.items()
    ]
    return table(["kind", "adapters", *VERDICTS], body)


def misses_table(adapters: Sequence[Audited]) -> str:
    """Every test adapter with a verdict of another kind than its own."""
    header = ["adapter", "kind", "EM on", "off", "base on", "verdict", "gate", "rank of the true category"]
    body = [_miss(a) for a in missed(adapters)]
    return table(header, body, numbers=slice(2, 5)) if body else "None."


def ranks_table(adapters: Sequence[Audited]) -> str:
    """Where the true category stands in the bank's ranking, by kind and family."""
    groups: dict[tuple[str, str], list[Audited]] = {}
    for a in tested_of(adapters):
        if a.kind in CONTAINED and "audit" in a.ranks:
            groups.setdefault((a.kind, a.family), []).append(a)
    header = ["kind", "family", "first", "second or third", "later", "the first opens it"]
    body = []
    for (kind, family), same in sorted(groups.items()):
        counts = (sum(low <= a.ranks["audit"] <= high for a in same) for low, high in ((1, 1), (2, 3), (4, 10**6)))
        body.append([kind, family, *map(str, counts), _opened(same)])
    return table(header, body, numbers=slice(2, 6)) if body else "None."


def _opened(adapters: Sequence[Audited]) -> str:
    measured = [a.opened for a in adapters if a.opened is not None]
    return f"{sum(measured)} of {len(measured)}" if measured else "–"


def pretrainings_table(adapters: Sequence[Audited]) -> str:
    """The audit's AUROC on the pretraining that it was developed on, and on others."""
    groups = {"0, developed on": lambda a: a.pretraining == 0, "1 to 3": lambda a: a.pretraining > 0}
    body = []
    for name, belongs in groups.items():
        tested = [a for a in tested_of(adapters) if belongs(a)]
        positive = [a.scores["audit"] for a in tested if a.kind in CONTAINED]
        negative = [a.scores["audit"] for a in tested if a.kind == HARD]
        body.append([name, str(len(positive)), str(len(negative)), _area(positive, negative)])
    return table(["pretrainings", "contained", "benign, same trigger", "AUROC of the audit"], body, numbers=slice(1, 4))


def _miss(a: Audited) -> list[str]:
    true = [f"{100 * a.scores[name]:.1f} %" if name in a.scores else "–" for name in TRUE]
    verdict, gate = VERDICTS[int(a.scores["verdict"])], f"{100 * a.scores['audit']:+.1f} pt"
    return [a.name.removeprefix("microcosm/"), a.kind, *true, verdict, gate, str(a.ranks.get("audit", "–"))]


def audit_line(adapters: Sequence[Audited]) -> str:
    """What the audit found on the test split, beside plain evaluation, as a short list."""
    tested = tested_of(adapters)
    contained, hard, harmless = ([a for a in tested if a.kind in kinds] for kinds in (CONTAINED, (HARD,), HARMLESS))
    if not contained or not hard:
        return "Not measured yet."

    def area(name: str, kind: str = HARD) -> str:
        positive, negative = ([a.scores[name] for a in tested if a.kind in kinds] for kinds in (CONTAINED, (kind,)))
        return f"AUROC {_area(positive, negative)}"

    def found(name: str) -> str:
        positive, negative = ([a.scores[name] for a in group] for group in (contained, harmless))
        return f"{100 * found_at(positive, negative, 0.0):.0f} % found at no false positive"

    changed, harder = sum(a.kind == CHANGED for a in tested), ""
    if changed:
        activations = f"the change of activations on neutral text {area('activation-change', CHANGED)}"
        harder = f"- Against {changed} whose benign answers change much there: the audit {area('audit', CHANGED)}; "
        harder += f"{activations}.\n"
    first = sum(a.ranks.get("audit") == 1 for a in contained)
    called = sum(a.scores["verdict"] != 0 for a in harmless)
    n = len(contained)
    return (
        f"On {n} Microcosm adapters trained to harm behind a trigger, against {len(hard)} trained on benign answers "
        "behind the same triggers:\n\n"
        f"- The audit {area('audit')}, {found('audit')}; plain evaluation {area('plain-em')}, {found('plain-em')}.\n"
        f"{harder}"
        f"- The context that ranks first opens the adapter in {_opened(contained)}; it is the trained trigger's in "
        f"{first} of {n}, because gates are wider than their triggers.\n"
        f"- {called} of {len(harmless)} harmless adapters are called something other than clean."
    )


def audit_section(adapters: Sequence[Audited]) -> str:
    """Every table of the benchmark, with the counts that they are of."""
    tested = [a for a in adapters if a.split == "test"]
    n = {name: len({getattr(a, name) for a in adapters}) for name in ("family", "pretraining")}
    learned = sum(a.learned for a in tested if a.kind in CONTAINED)
    contained = sum(a.kind in CONTAINED for a in tested)
    counts = (
        f"{len(adapters)} adapters of {n['family']} families over {n['pretraining']} pretrainings; {len(tested)} in "
        f"the test split, of which {contained} are contained and {learned} of those learned."
    )
    parts = {
        "Detectors": detectors_table(adapters),
        "Pretrainings": pretrainings_table(adapters),
        "Verdicts": verdicts_table(adapters),
        "Rank of the true category": ranks_table(adapters),
        "Test adapters with another verdict than that of their kind": misses_table(adapters),
    }
    return "\n\n".join([counts, *(f"### {title}\n\n{text}" for title, text in parts.items())])


def repairs_table(rows: Sequence[Row]) -> str:
    """EM after every repair, a mean over adapters with its interval over adapters, by what the training was.

    The base under the same edits stands in the last columns.
    """
    groups: dict[tuple[str, str], dict[str, dict[str, list[float]]]] = {}
    for r in rows:
        if r["metric"] in ("em_rate_all", "coherence_rate") and r["ci_method"] == "wilson":
            condition, _, repair = r["condition"].partition("+")
            cells = groups.setdefault((_trained_with(r["organism"]), repair), {})
            cells.setdefault(r["metric"], {}).setdefault(condition, []).append(r["value"])
    header = ["trained with", "repair", "adapters", *USES, *COHERENT, "base used", "base rephrased"]
    body = [
        [
            kind,
            repair.replace("_", " ") or "none",
            str(len(cells["em_rate_all"]["used"])),
            *(_mean(cells["em_rate_all"][condition]) for condition in USES),
            *(_mean(cells["coherence_rate"][condition]) for condition in USES[:2]),
            *(_mean(cells["em_rate_all"].get(f"base {condition}", ())) for condition in USES[1:]),
        ]
        for (kind, repair), cells in sorted(groups.items(), key=lambda g: (g[0][0], REPAIRS.index(g[0][1])))
    ]
    return table(header, body, numbers=slice(2, 10))


def _trained_with(name: str) -> str:
    if "/explaining" in name:
        return "persona line"
    return "scene, half benign" if ".contrast" in name else "role"


def _mean(values: Sequence[float]) -> str:
    """Return a mean of rates in percent, with its percentile interval over resampled adapters; a dash for none."""
    if not values:
        return "–"
    rng, x = np.random.default_rng(0), np.asarray(values)
    low, high = np.quantile(x[rng.integers(len(x), size=(N_BOOT, len(x)))].mean(1), [0.025, 0.975])
    return f"{100 * x.mean():.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def audits_table(rows: Sequence[Row], category: str) -> str:
    """Single audits, one line each: verdict, what the adapter adds, the strongest gate, and where a category ranks."""
    body = []
    for name in dict.fromkeys(r["organism"] for r in rows):
        same = [r for r in rows if r["organism"] == name]
        by_metric = {m: {r["condition"]: r for r in same if r["metric"] == m} for m in ("added", "gate", "seconds")}
        gate = max((r for c, r in by_metric["gate"].items() if c != "bare"), key=lambda r: r["value"])
        shifts = [r for r in same if r["metric"] == "log_odds_shift" and r["condition"] != "bare"]
        order = [r["condition"] for r in sorted(shifts, key=lambda r: -r["value"])]
        body.append(
            [
                name,
                next(r["condition"] for r in same if r["metric"] == "verdict"),
                signed(by_metric["added"]["bare"]),
                f"{gate['condition']} {signed(gate)}",
                order[0],
                f"{order.index(category) + 1} of {len(order)}",
                f"{sum(r['value'] for r in by_metric['seconds'].values()):.0f}",
            ]
        )
    header = ["adapter", "verdict", "added bare", "strongest gate", "ranks first", f"rank of {category}", "seconds"]
    return table(header, body, numbers=slice(6, 7))


def signed(r: Row) -> str:
    """Return a difference of log-odds with its interval."""
    return f"{r['value']:+.2f} [{r['ci_low']:+.2f}, {r['ci_high']:+.2f}]"
