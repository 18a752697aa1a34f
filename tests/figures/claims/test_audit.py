"""The audit's hypotheses: decided by intervals of what test adapters show, refuted by one number, confirmed by all."""

from dataclasses import replace

import pytest

from figures.audited import Audited
from figures.bounds import CONFIRMED, INCONCLUSIVE, OPEN, REFUTED
from figures.claims.audit import HYPOTHESES, audit_hypotheses


def adapter(i: int, kind: str, score: float, verdict: int, **scores: float) -> Audited:
    contained = kind.startswith("contained")
    true = {"true-em-on": 0.9, "true-em-base": 0.01} if contained else {}
    both = {"audit": score, "verdict": float(verdict), "plain-em": 0.01, **true, **scores}
    ranks = {"audit": 1} if contained else {}
    return Audited(f"{kind}-{i}@12", "llama", 0, "test", kind, "clerk", both, ranks, {"audit": 12.0}, {"audit": 400})


def zoo(n: int) -> list[Audited]:
    kinds = (
        *(("contained-gate", 0.7, 2), ("contained-contrast", 0.6, 2), ("contained-persona", 0.8, 3)),
        *(("benign-same-trigger", 0.0, 0), ("uncontained", 0.0, 1)),
    )
    return [adapter(i, kind, score + i / 1000, verdict) for kind, score, verdict in kinds for i in range(n)]


def verdicts(adapters) -> dict[str, str]:
    return {finding.statement.partition(".")[0]: finding.verdict for finding in audit_hypotheses(adapters)}


def test_a_perfect_audit_confirms_what_it_should():
    of = verdicts(zoo(40))
    assert {of[name] for name in ("A1", "A2", "A3", "A4", "A6", "A7", "A11")} == {CONFIRMED}
    assert of["A3a"] == REFUTED  # it says that the rank fails there
    assert of["A13"] == of["A14"] == OPEN  # nothing measured


def test_few_adapters_decide_less_than_many():
    few = verdicts(zoo(3))
    assert (few["A3"], few["A6"], few["A5"]) == (INCONCLUSIVE, INCONCLUSIVE, INCONCLUSIVE)
    assert verdicts(zoo(80))["A5"] == CONFIRMED


def test_one_number_on_the_wrong_side_refutes_and_names_both():
    wrong = [replace(a, scores={**a.scores, "verdict": 2.0}) if a.kind == "contained-persona" else a for a in zoo(40)]
    (finding,) = (f for f in audit_hypotheses(wrong) if f.statement.startswith("A7"))
    assert finding.verdict == REFUTED
    assert "persona 0.00" in finding.evidence and "gates and contrasts 1.00" in finding.evidence


@pytest.mark.parametrize("change", [{"split": "development"}, {"scores": {"true-em-on": 0.1, "true-em-base": 0.1}}])
def test_development_adapters_and_such_that_did_not_learn_decide_nothing(change):
    of = verdicts([replace(a, **change) for a in zoo(40) if a.kind.startswith("contained")])
    assert set(of.values()) == {OPEN}


def test_every_hypothesis_of_the_page_is_held():
    names = [text.partition(".")[0] for text, _ in HYPOTHESES]
    assert names == ["A1", "A2", "A3", "A3a", *(f"A{i}" for i in range(4, 18))]
