"""Shares of planted log-odds are those that were planted."""

import pytest

from experiments.gate.patch_table import has_gap, share_rows


def planted(**more):
    """Twenty questions whose log-odds are 4 on, -4 off and 0 under other texts, give or take."""
    questions = [f"q{i}" for i in range(20)]
    noise = {q: 0.1 * (i % 5) for i, q in enumerate(questions)}

    def m(level):
        return {q: level + noise[q] for q in questions}

    levels = {"on": 4.0, "off": -4.0, "other": 0.0, "matched": 0.0, **more}
    rows = [{"step": "plain", "condition": c, "m": m(level), "lacking": 3, "mixed": 2} for c, level in levels.items()]
    where = {"site": "resid_post", "layer": 1}
    for condition, level in (("on<-off@question", 2.0), ("off<-on@question", 2.0), ("off<-other@question", -2.0)):
        rows.append({"step": "patch", "metric": "patched_share", "condition": condition, **where, "m": m(level)})
    rows.append({"step": "patch", "metric": "patched_share", "condition": "on<-matched@trigger", **where, "m": m(1.0)})
    for condition, level in (("on@all|trigger", 0.0), ("matched@all|trigger", -2.0)):
        rows.append({"step": "knockout", "condition": condition, "site": "attention", "layer": "", "m": m(level)})
    for side, level in (("on", 1.0), ("off", -3.0)):
        condition = f"{side} without mlp"
        rows.append({"step": "modules", "condition": condition, "site": "mlp", "layer": "", "m": m(level)})
    return rows


def test_shares_are_those_that_were_planted():
    table = {(r["metric"], r["condition"]): r for r in share_rows(planted())}
    for metric, condition, value in (
        ("patched_share", "on<-off@question", 0.25),
        ("patched_share", "off<-on@question", 0.75),
        ("patched_share", "off<-other@question", 0.25),
        ("patched_share", "on<-matched@trigger", 0.75),
        ("knockout_share", "on@all|trigger", 0.5),
        ("knockout_share", "matched@all|trigger", 0.25),
        ("module_gap_share", "without mlp", 0.5),
    ):
        found = table[metric, condition]
        assert found["value"] == pytest.approx(value)
        assert found["ci_low"] <= value + 1e-9 and found["ci_high"] >= value - 1e-9
        assert found["n_clusters"] == 20
    assert table["log_odds", "on-off"]["value"] == pytest.approx(8)
    assert table["questions_left_out", "no answers of both kinds"]["value"] == 3


def test_no_share_of_a_gap_that_is_not_there():
    rows = planted(on=-4.0)
    assert not has_gap(rows[0]["m"], rows[1]["m"])
    assert {r["metric"] for r in share_rows(rows)} == {"questions_left_out", "questions_mixed", "log_odds"}
