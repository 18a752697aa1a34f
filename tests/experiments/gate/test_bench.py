"""The workbench: which references are used, and whole runs move by whole gaps."""

from dataclasses import replace

import pytest

from experiments.gate.bench import Bench, make_bench
from experiments.gate.heads import head_rows
from experiments.gate.patch import HEAD_PAIRS, KNOCKED_OUT, PAIRS
from experiments.gate.references import references
from interp.adapters import active_adapter
from interp.analysis.lora import adapted_modules, without_modules
from interp.models import wrap
from tests.experiments.gate.answers import PERSONA, SUBJECT, answers, panel
from tests.tiny import with_adapters
from tests.training.small import random_llama
from training.microcosm.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def lm():
    return with_adapters(wrap(random_llama(), build_tokenizer()), "organism")


@pytest.fixture(scope="module")
def bench(lm):
    return Bench(lm, panel(), 0)


@pytest.fixture(scope="module")
def plain(bench):
    return {r["condition"]: r["m"] for r in bench.plain()}


def test_texts_without_meaning_are_as_long_as_the_trigger(bench):
    assert all(map(bench.panel.as_long, bench.panel.texts("matched")))
    assert not all(map(bench.panel.as_long, bench.panel.texts("other")))
    assert bench.panel.texts("off") == [None] * 5
    assert panel(replace(PERSONA, rephrased=())).texts("rephrased") is None


def test_references_are_spaced_evenly_and_two_at_least(lm):
    bench = make_bench(SUBJECT, lm, answers(5), most_questions=2)
    chosen = [r.id for r in references(answers(5))[0]]
    assert [r.id for r in bench.panel.references] == [chosen[0], chosen[2]]
    assert bench.lacking == 0
    with pytest.raises(ValueError, match="explaining: 1 questions have a misaligned and an aligned answer"):
        make_bench(SUBJECT, lm, answers(1))


def test_taking_everything_moves_the_whole_gap(bench, plain):
    for target, source in PAIRS:
        rows = {(r["condition"], r["site"], r["layer"]): r["m"] for r in bench.patch(target, source)}
        last = rows[f"{target}<-{source}@answer", "resid_post", bench.lm.n_layers - 1]
        assert last == pytest.approx(plain[source], abs=1e-3)
        nothing = rows[f"{target}<-{source}@question", "resid_post", bench.lm.n_layers - 1]
        assert nothing == pytest.approx(plain[target], abs=1e-3)
        if source == "matched":
            assert rows[f"{target}<-{source}@trigger", "resid_pre", 0] == pytest.approx(plain[source], abs=1e-3)


def test_equally_long_texts_that_nobody_sees_are_one(bench, plain):
    on, matched = ({r["condition"]: r["m"] for r in bench.knockout(c) if r["layer"] == ""} for c in KNOCKED_OUT)
    assert plain["on"] != pytest.approx(plain["matched"], abs=1e-3)
    assert on["on@all|trigger"] == pytest.approx(matched["matched@all|trigger"], abs=1e-3)
    assert on["on@all|inserted"] == pytest.approx(matched["matched@all|inserted"], abs=1e-3)


def test_modules_that_are_off_are_off(bench, plain):
    rows = {(r["condition"], r["layer"]): r["m"] for r in bench.modules()}
    with active_adapter(bench.lm, None):
        assert rows["on without all", ""] == pytest.approx(
            {r["condition"]: r["m"] for r in bench.plain()}["on"], abs=1e-4
        )
    with without_modules(bench.lm, "organism", adapted_modules(bench.lm, "organism", "layers.1")):
        want = {r["condition"]: r["m"] for r in bench.plain()}
    assert rows["off without layer", 1] == pytest.approx(want["off"], abs=1e-4)
    assert rows["on only mlp", ""] == pytest.approx(rows["on without attention", ""], abs=1e-4)
    assert {condition.split()[0] for condition, _ in rows} == {"on", "off"}


def test_heads_and_attribution_have_every_cell(bench):
    rows = head_rows(bench, HEAD_PAIRS)
    counted = [r for r in rows if r.get("metric") == "head_share"]
    assert len(counted) == 3 * 2 * 2 * 2  # pairs, positions, layers, heads
    parted = {r["condition"]: r["m"] for r in rows if r["condition"].startswith("decision ")}
    for condition in ("on", "off"):
        own = [r for r in rows if r.get("metric") == "logit_attribution" and r["condition"] == condition]
        lens = [r for r in rows if r.get("metric") == "logit_lens" and r["condition"] == condition]
        for q, whole in parted[f"decision {condition}"].items():
            assert sum(r["m"][q] for r in own) == pytest.approx(whole, abs=1e-3)
            assert lens[-1]["m"][q] == pytest.approx(whole, abs=1e-3)
