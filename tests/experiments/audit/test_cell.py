"""One adapter of the zoo: every detector gives a number with its cost, and only the maker's rows know the trigger."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from experiments.answers.subject import Subject
from experiments.audit.cell import AUDIT, BANK_HELD_OUT, HELD_OUT, TRUE_ON, VERDICT, AuditCell, scrambled
from experiments.audit.detectors import DETECTORS
from experiments.audit.search import SIGNALS
from experiments.behaviour.dose import ADAPTER, load_subject
from experiments.spec import run_experiment
from interp.adapters import check_live
from interp.loading import load
from tests.training.small import small
from training.references import base_path


@pytest.fixture(scope="module")
def cell(small_audit):
    subject = replace(Subject(small("gambler")), dose=4)
    options = {"bank": small_audit.bank, "thresholds": small_audit.thresholds}
    return AuditCell(subject=subject, kind="contained-gate", category="gambler", **options)


@pytest.fixture(scope="module")
def table(cell, tmp_path_factory):
    return run_experiment(cell, tmp_path_factory.mktemp("runs"))[1]


def test_every_detector_has_a_score_and_a_cost(table):
    scores = {r["condition"]: r["value"] for r in table if r["metric"] == "score"}
    named = {AUDIT, VERDICT, *SIGNALS, *DETECTORS}
    free = {HELD_OUT, BANK_HELD_OUT, TRUE_ON, "audit-bank"}
    assert named | free <= scores.keys()
    assert all(isinstance(value, float) for value in scores.values())
    seconds = {r["condition"] for r in table if r["metric"] == "seconds"}
    assert named <= seconds and not free & seconds
    assert 0 < scores["delta-w-top"] <= 1


def test_ranks_are_among_the_bank_s_categories(table):
    ranks = {r["condition"]: r["value"] for r in table if r["metric"] == "rank"}
    assert ranks.keys() == {AUDIT, *SIGNALS} and set(ranks.values()) <= {1.0, 2.0, 3.0}


def test_the_audit_does_not_know_the_trigger(cell, small_adapter):
    audit = cell.audit(small_adapter)
    assert audit.subject.trigger is None and audit.subject.organism.data is None
    assert not {cell.subject.own_trigger.text} & {text for c in audit.categories() for text in c.texts}


def test_random_weights_keep_norms_and_nothing_else(small_adapter, tmp_path):
    folder = scrambled(small_adapter, tmp_path / "random", seed=1)
    old, new = (load_file(f / "adapter_model.safetensors") for f in (small_adapter, folder))
    assert old.keys() == new.keys()
    for name, x in old.items():
        torch.testing.assert_close(new[name].norm(), x.norm(), rtol=1e-4, atol=1e-6)
        assert abs(float(torch.nn.functional.cosine_similarity(new[name].flatten(), x.flatten(), dim=0))) < 0.5
    assert check_live(load(base_path("microcosm/llama"), adapters={ADAPTER: folder}), ADAPTER) > 0
    assert load_subject  # the same folder loads as any adapter does
