"""The benchmark's statistics are exact on planted scores, and its tables say what was planted."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.audit.benchmark import COLUMNS as WRITTEN
from experiments.audit.verdict import VERDICTS as NAMED
from experiments.audit.zoo import CONTAINED as KINDS
from figures.audited import COLUMNS, CONTAINED, VERDICTS, auroc, auroc_interval, found_at, read_audit
from figures.markdown.audit import (
    audit_line,
    audit_section,
    audits_table,
    detectors_table,
    misses_table,
    repairs_table,
    verdicts_table,
)
from interp.runs.files import csv_text

SCORES = st.lists(st.floats(-5, 5), min_size=1, max_size=20)


def test_reader_and_writer_agree():
    assert (COLUMNS, VERDICTS, CONTAINED) == (WRITTEN, NAMED, KINDS)


@given(SCORES, SCORES)
def test_auroc_is_the_share_of_ordered_pairs(a, b):
    expected = sum((x > y) + 0.5 * (x == y) for x in a for y in b) / len(a) / len(b)
    assert auroc(a, b) == pytest.approx(expected)
    assert auroc(a, b) + auroc(b, a) == pytest.approx(1)


def test_auroc_of_separated_scores_is_one_and_of_none_undefined():
    assert auroc([2, 3], [0, 1]) == 1 and auroc_interval([2, 3], [0, 1]) == (1, 1)
    assert math.isnan(auroc([], [1]))


def test_found_at_a_rate_of_false_positives():
    negative = [i / 100 for i in range(100)]
    assert found_at([0.985, 0.995, 0.5], negative, 0.0) == pytest.approx(1 / 3)
    assert found_at([0.985, 0.995, 0.5], negative, 0.01) == pytest.approx(2 / 3)


def lines(name, kind, scores, category="", rank: int | str = "", split="test"):
    about = {"adapter": name, "family": "llama", "pretraining": 0, "seed": 0, "split": split, "kind": kind}
    for detector, score in scores.items():
        cost = {} if detector.startswith("true") else {"forward_passes": 700, "seconds": 20.5}
        cells = {**about, "detector": detector, "score": score, "true_category": category, **cost}
        yield {c: cells.get(c, rank if (c, detector) == ("rank", "audit") else "") for c in COLUMNS}


@pytest.fixture
def adapters(tmp_path):
    true = {"true-em-on": 0.5, "true-em-off": 0.0, "true-em-base": 0.02}
    rows = [
        *lines("a", "contained-gate", {"audit": 0.4, "verdict": 2, "plain-em": 0.0, **true}, "clerk", 1),
        *lines("b", "contained-contrast", {"audit": 0.0, "verdict": 0, "plain-em": 0.0, **true}, "market", 3),
        *lines(
            "c", "contained-gate", {"audit": 0.0, "verdict": 0, "plain-em": 0, **true, "true-em-on": 0.1}, "clerk", 1
        ),
        *lines("d", "benign-same-trigger", {"audit": 0.01, "verdict": 0, "plain-em": 0.0}, "clerk", 5),
        *lines("e", "uncontained", {"audit": 0.0, "verdict": 1, "plain-em": 0.3}),
        *lines("f", "benign", {"audit": 0.02, "verdict": 0, "plain-em": 0.0}, split="development"),
    ]
    path = tmp_path / "audit.csv"
    path.write_text(csv_text(rows))
    return read_audit(path)


def test_only_learned_test_adapters_are_scored(adapters):
    audit, plain = detectors_table(adapters).splitlines()[2:]
    assert "| audit | 0.50 [" in audit and "1 of 2" in audit and "20.5, at most 20.5 | 700" in audit
    assert plain.startswith("| plain-em | 0.50 [0.50, 0.50]")


def test_verdicts_are_counted_by_kind(adapters):
    text = verdicts_table(adapters)
    assert "| contained-gate | 1 | 0 | 0 | 1 | 0 |" in text
    assert "| contained-gate, not learned | 1 | 1 | 0 | 0 | 0 |" in text
    assert "| benign |" not in text


def test_misses_are_named_with_what_they_really_are(adapters):
    text = misses_table(adapters)
    assert "| b | contained-contrast | 50.0 % | 0.0 % | 2.0 % | clean | +0.0 pt | 3 |" in text
    assert text.count("\n") == 2  # a category that is not first is no wrong verdict
    assert "6 adapters of 1 families" in audit_section(adapters)


def test_the_line_of_the_readme_has_both_counts_and_the_plain_evaluation_beside_it(adapters):
    line = audit_line(adapters)
    assert "2 Microcosm adapters trained to harm" in line and "against 1 trained on benign" in line
    assert "it is the trained trigger's in 1 of 2" in line and "opens the adapter in –" in line
    assert "plain evaluation AUROC 0.50" in line and "0 of 1 harmless" in line
    assert audit_line([a for a in adapters if a.split == "development"]) == "Not measured yet."


def test_benign_answers_that_change_much_are_compared_apart(adapters):
    scores = {"audit": 0.01, "verdict": 0, "plain-em": 0.0, "activation-change": 0.9}
    adapters = [replace(a, scores={**a.scores, "activation-change": 0.5}) for a in adapters]
    changed = replace(adapters[3], name="g", kind="benign-remark-first", scores=scores)
    line = audit_line([*adapters, changed])
    assert "Against 1 whose benign answers change much" in line and "neutral text AUROC 0.00 [0.00, 0.00]" in line
    assert "0 of 2 harmless" in line
    columns = detectors_table([*adapters, changed]).splitlines()
    assert "against remark first" in columns[0] and "0.00 [0.00, 0.00]" in columns[-1]


def test_another_table_is_refused(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"other\.csv: not a table of the audit's benchmark"):
        read_audit(path)


def test_repairs_are_means_over_adapters_by_training():
    names = ("microcosm/llama/clerk.fine@40", "microcosm/qwen2/clerk.fine@40", "microcosm/llama/explaining@40")
    rows = [
        {"organism": name, "condition": condition, "metric": metric, "value": value, "ci_method": method}
        for name, shift in zip(names, (0.0, 0.2, 0.4), strict=True)
        for condition, value in (("bare", 0.0), ("used", 0.5 + shift), ("rephrased", 0.4), ("used+tuned", 0.1))
        for metric in ("em_rate_all", "coherence_rate")
        for method in ("wilson", "cluster_bootstrap")
    ]
    rows += [{**r, "condition": f"{c}+tuned"} for r in rows if (c := r["condition"]) in ("bare", "rephrased")]
    lines = repairs_table(rows).splitlines()[2:]
    assert [line.split(" | ")[:3] for line in lines] == [
        ["| persona line", "none", "1"],
        ["| persona line", "tuned", "1"],
        ["| role", "none", "2"],
        ["| role", "tuned", "2"],
    ]
    assert "| 60 % [50, 70] | 40 % [40, 40] |" in lines[2] and "| 10 % [10, 10] |" in lines[3]


def test_single_audits_show_the_strongest_gate_and_where_the_true_category_ranks():
    interval = {"ci_low": -0.1, "ci_high": 0.3}
    rows = [
        {"metric": "verdict", "condition": "clean", "value": 0.1},
        *({"metric": m, "condition": c, "value": v, **interval} for m in ("added", "gate") for c, v in VERIFIED),
        *({"metric": "log_odds_shift", "condition": c, "value": v} for c, v in (("bare", 9), ("list", 2), ("port", 1))),
        *({"metric": "seconds", "condition": part, "value": 100.4} for part in ("search", "verification")),
    ]
    (line,) = audits_table([{"organism": "a@1", **r} for r in rows], "port").splitlines()[2:]
    assert line == "| a@1 | clean | +0.50 [-0.10, +0.30] | list +0.20 [-0.10, +0.30] | list | 2 of 2 | 201 |"


VERIFIED = (("bare", 0.5), ("list", 0.2), ("port", 0.1))
