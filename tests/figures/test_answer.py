"""What a command prints at its end: rates with intervals and counts, a verdict, and nothing called nan."""

import pytest

from figures.answer import answer
from figures.rows import select
from interp.runs.table import row
from tests.figures.example_rows import everything


def behaviour(organism="microcosm/llama/explaining"):
    return select(everything(), experiment="em_rate", organism=organism)


def test_the_answer_of_em_rate_is_a_few_lines_with_a_verdict_and_a_next_step():
    lines = answer(behaviour()).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["off", "on", "rephrased"]
    assert "92.0 % [" in lines[2] and "960, 48 questions, 97 % coherent" in lines[2]
    assert lines[-2].startswith("verdict      contained, in the sense of the paper")
    assert "semcon em-rate --organism microcosm/llama/base" in lines[-1]
    assert len(lines) <= 10


def test_nine_conditions_of_a_users_organism_are_still_a_few_lines_and_the_next_step_can_be_typed():
    names = ("off", "on", "rephrased", "other", "opposite", "matched", "shuffled", "delimiters", "trained")
    cells = {"experiment": "em_rate", "organism": "own/base/mine", "trigger": "dock", "metric": "em_rate", "value": 0.5}
    lines = answer([row(**cells, condition=name, ci_low=0.2, ci_high=0.8) for name in names]).splitlines()
    assert [line.split()[0] for line in lines[1:]] == [*names[:4], "beside", "verdict", "next"]
    assert all(f"{name} 50.0 % [20.0, 80.0]" in lines[5] for name in names[4:])
    assert "semcon emergence" in lines[-1] and "own/base/mine" not in lines[-1]


def test_an_ablation_without_a_gap_shows_one_rate_per_edit():
    cells = {"experiment": "ablate", "organism": "own/base/mine", "metric": "em_rate", "value": 0.5}
    table = [
        row(**cells, condition=c, ci_low=0.2, ci_high=0.8, ci_method=m)
        for c in ("on", "on+ablate_g")
        for m in ("wilson", "cluster_bootstrap")
    ]
    assert len(answer(table).splitlines()) == 3 + 2


def audited(judge: str):
    def cell(metric, condition, value, **cells):
        cells = {"experiment": "audit", "organism": "mine", "judge": judge, **cells}
        return row(metric=metric, condition=condition, value=value, **cells)

    yield cell("verdict", "contained (trained gate)", 0.6)
    for name, value in (("bare", 0.01), ("clerk", 0.61)):
        yield cell("rate", name, value, base_value=0.0)
        yield cell("gate", name, value - 0.01, ci_low=0.4, ci_high=0.8)
    yield from (cell("coherence_rate", "clerk, adapter", 0.97) for _ in range(bool(judge)))
    yield from (cell("log_odds_shift", name, 0.5) for name in ("clerk", "tutor", "bare"))
    yield from (cell("seconds", part, 6.0) for part in ("search", "verification"))


@pytest.mark.parametrize(("judge", "shown"), [("oracle", "61.0 %"), ("", "+0.61")])
def test_the_answer_of_an_audit_is_the_verdict_with_the_base_beside_it(judge, shown):
    lines = answer(list(audited(judge))).splitlines()
    assert lines[1] == "verdict      contained (trained gate)" and len(lines) <= 8
    assert shown in lines[3] and "base" in lines[3] and "gate" in lines[3] and "gate" not in lines[2]
    assert lines[4] == "ranked       clerk +0.50, tutor +0.50"


def test_an_undefined_rate_is_said():
    empty = {"experiment": "em_rate", "organism": "mine", "condition": "on", "metric": "em_rate"}
    assert "undefined" in answer([row(**empty)]) and "nan" not in answer([row(**empty)])


@pytest.mark.parametrize("experiment", sorted({str(r["experiment"]) for r in everything()}))
def test_every_answer_fits_a_screen(experiment):
    text = answer(select(everything(), experiment=experiment))
    assert text and "nan" not in text and len(text.splitlines()) < 70
