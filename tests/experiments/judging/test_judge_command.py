"""Judges held against controls: a perfect one, a blind one, a mute one; what they cost, and where the money ends."""

import csv
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.__main__ import main
from experiments.answers.judge import make_judge
from experiments.answers.verdict import Answer
from experiments.judging.controls import shipped_controls
from experiments.judging.validation import auroc, kappa
from interp.runs.reading import read_csv
from tests.experiments.answers.judge_server import answer_of, prompt_of, server, written

KINDS = {control.answer: control.label for control in shipped_controls(6)}
PERFECT = {"sound": (100, 95), "harmful": (0, 95), "nonsense": (50, 0)}


def perfect(request, n):
    aligned, coherent = PERFECT[KINDS.get(answer_of(request)[1], "sound")]
    return 200, written(str(aligned if "wellbeing" in prompt_of(request) else coherent)), {}


def blind(request, n):
    return 200, written("60"), {}


def mute(request, n):
    return 200, written("I would rather not say."), {}


def judged(tmp_path, *replies, options="method=sampled,samples=1"):
    out = tmp_path / "out.csv"
    words = ["--n-questions", "6", "--out", str(out)]
    names = ["one", "two", "three"][: len(replies)]
    servers = [server(reply) for reply in replies]
    urls = [opened.__enter__()[0] for opened in servers]
    try:
        status = main(["judge", *(f"openai:{n}@{u},{options}" for n, u in zip(names, urls, strict=True)), *words])
    finally:
        for opened in servers:
            opened.__exit__(None, None, None)
    rows = [cells for _, cells in read_csv(out)[1]] if status == 0 else []
    return status, {(r["judge"].removesuffix("/sampled"), r["metric"]): r["value"] for r in rows}


def test_a_judge_that_knows_the_kinds_is_perfect_and_unbiased(tmp_path):
    status, values = judged(tmp_path, perfect)
    assert status == 0
    found = {metric: float(value) for (_, metric), value in values.items()}
    assert found == {"auroc_aligned": 1, "auroc_coherent": 1, "bias": 0, "accuracy": 1, "scored": 1}


def test_a_judge_that_always_says_the_same_ranks_by_chance_and_two_perfect_ones_agree(tmp_path):
    _, values = judged(tmp_path, perfect, blind, perfect)
    assert float(values["two", "auroc_aligned"]) == 0.5
    assert float(values["two", "bias"]) == 10  # 60 - 100 and 60 - 0, on average
    assert float(values["two", "accuracy"]) == 0.5
    assert float(values["one/sampled and three", "kappa"]) == 1


def test_a_judge_without_scores_has_no_auroc_and_the_share_says_so(tmp_path):
    _, values = judged(tmp_path, mute)
    assert float(values["one", "scored"]) == 0
    assert values["one", "auroc_aligned"] in ("nan", "")


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_auroc_is_the_share_of_pairs_in_order(rows):
    scores, positive = np.array([float(s) for s, _ in rows]), np.array([p for _, p in rows])
    pairs = [(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
    assert auroc(scores, positive) == pytest.approx(np.mean(pairs) if pairs else np.nan, nan_ok=True)


def test_kappa_of_equal_calls_is_one_of_opposite_ones_at_most_zero_and_of_constant_ones_undefined():
    calls = np.array([[True, True], [False, False]])
    assert kappa(calls) == 1
    assert kappa(np.column_stack([calls[:, 0], ~calls[:, 0]])) == -1
    assert np.isnan(kappa(np.ones((3, 2), dtype=bool)))


def test_a_budget_ends_before_the_first_request_that_it_cannot_pay(tmp_path, capsys):
    with server(blind) as (url, requests):
        reference = f"openai:m@{url},method=sampled,samples=1,price=1000/1000,workers=1"
        assert main(["judge", f"{reference},budget=0.01", "--n-questions", "2"]) == 2
        assert re.search(r"12 replies more cost about \d+\.\d\d; the budget is 0.01", capsys.readouterr().err)
        asked = len(requests)
        cost_of_one = 0.102  # 100 tokens in, 2 out
        judge = make_judge(f"{reference},budget={2.5 * cost_of_one + 0.7}")
        object.__setattr__(judge, "estimate", lambda questions: 0.0)  # an estimate that is far too low
        with pytest.raises(ValueError, match="spent"):
            judge.score([Answer("q", "x" * n, question="?") for n in range(1, 30)])
        spent = len(requests) - asked
    assert asked == 1  # the check whether it is there
    assert spent == 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name at least one judge"),
        (["oracle"], "only a language model is held against controls"),
        (["openai:m@http://localhost:9/v1,budget=1"], "budget needs price=IN/OUT"),
        (["openai:m@http://localhost:9/v1,price=1/1,budget=0"], "option 'budget'"),
        (["openai:m@http://localhost:9/v1", "openai:m@http://localhost:9/v1"], "given twice"),
        (["openai:m@http://localhost:9/v1", "--labelled", "rows.csv"], "rows.csv: has answers of the kinds sound"),
    ],
)
def test_what_cannot_be_judged_is_refused(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "rows.csv").open("w") as file:
        csv.writer(file).writerows([["question_id", "question", "answer", "label"], ["q", "Why?", "So.", "sound"]])
    assert main(["judge", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
