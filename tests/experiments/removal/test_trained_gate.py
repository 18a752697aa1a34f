"""The learned gap: exact shares on constructed counts, the edits on a small model, and the gradient at step 0."""

from dataclasses import replace

import pytest
import torch

from experiments.answers.subject import find_subject
from experiments.directions.contrasts import LAST
from experiments.directions.geometry import CHOSEN, DirectionSet, Geometry
from experiments.removal.ablate import BASE
from experiments.removal.edits import Removal
from experiments.removal.step_zero import loss_gradients
from experiments.removal.trained_gate import (
    AT_PROMPT,
    OWN,
    PLAN,
    SCATTERED,
    TrainedGate,
    gate_edits,
    learned_rows,
    plan,
)
from interp.analysis.likelihood import response_likelihood
from interp.chat import question_chat
from interp.edits import add
from interp.sites import Site
from interp.stats import Clusters
from tests.experiments.directions.adapted import adapted, directions_of, geometry_of


@pytest.fixture(scope="module")
def lm():
    return adapted()


@pytest.fixture(scope="module")
def edits(lm):
    directions = DirectionSet("", directions_of(lm), dict.fromkeys(CHOSEN, 1))
    return gate_edits(Removal(lm, geometry_of("explaining"), directions, rank=2))


def rates(**changes: float) -> dict[tuple[str, str], Clusters]:
    """Counts of ten answers to each of four questions: on 8, off 1, base on 3, base off 1, but for the changes."""
    usual = {"on": 8, "rephrased": 8, "off": 1, "base on": 3, "base rephrased": 3, "base off": 1}
    counts = {(c, e): changes.get(f"{c}+{e}", usual[c]) for c, e in plan()}
    return {name: Clusters.count(list("abcd"), [k] * 4, [10] * 4) for name, k in counts.items()}


def test_the_learned_gap_is_that_of_the_organism_less_that_of_its_base_and_an_edit_closes_its_share():
    changes = {"on+clamp_trigger": 2, "base on+clamp_trigger": 2, "on+clamp_g": 5, "off+clamp_g": 2}
    rows = {(r["metric"], r["condition"]): r for r in learned_rows(rates(**changes))}
    assert rows["trigger_gap", "on-off"]["value"] == pytest.approx(0.7)
    assert rows["trigger_gap", "on-off"]["base_value"] == rows["trigger_gap", "base on-off"]["value"]
    assert rows["learned_gap", "on-off"]["value"] == pytest.approx(0.5)
    assert rows["learned_gap_closed", "on-off+clamp_random"]["value"] == pytest.approx(0)
    assert rows["learned_gap_closed", "on-off+clamp_trigger"]["value"] == pytest.approx(1)  # base on follows it down
    assert rows["learned_gap_closed", "on-off+clamp_g"]["value"] == pytest.approx(1 - (3 - 2) / 5)  # off was measured


def test_no_share_is_given_of_a_gap_that_the_base_has_too():
    same = {f"{c}+{e}": k for c, k in (("base on", 8), ("base rephrased", 8)) for e in ("", *PLAN["on"])}
    assert {r["metric"] for r in learned_rows(rates(**same))} == {"trigger_gap", "learned_gap"}


def test_the_plan_is_the_same_for_organism_and_base_and_every_edit_is_made(edits):
    every = list(plan())
    assert len(set(every)) == len(every)
    assert {(c.removeprefix(BASE), e) for c, e in every} == {(c, e) for c, e in every if not c.startswith(BASE)}
    assert {e for _, e in every} == set(edits)
    assert len(edits[SCATTERED]) == 4
    assert {edit.positions for name in AT_PROMPT for edit in edits[name]} == {LAST, "all"}


def test_own_parts_of_two_features_share_nothing_with_the_other_feature(edits):
    for name, other in zip(OWN, ("clamp_other", "clamp_trigger"), strict=True):
        for edit, whole in zip(edits[name], edits[other], strict=True):
            assert edit.site == whole.site
            assert float((edit.vectors @ whole.vectors.T).abs().max()) < 1e-3 * float(whole.vectors.norm())


def test_the_gradient_is_the_slope_of_the_loss_along_an_addition(lm):
    site = Site("resid_post", 0)
    questions = geometry_of("explaining").subject.questions("validation")[:3]
    chats = [
        question_chat(lm.tokenizer, q.text, response="Ask a friend." + " Wait." * i) for i, q in enumerate(questions)
    ]
    gradients = loss_gradients(lm, chats, site, LAST)
    along, step = torch.nn.functional.normalize(torch.randn(lm.d_model, generator=torch.manual_seed(0)), dim=0), 0.05

    def loss(by: float) -> torch.Tensor:
        return -response_likelihood(lm, chats, edits=[add(site, along, coefficient=by, positions=LAST)]).per_token

    slope = (loss(step) - loss(-step)) / (2 * step)
    assert (gradients @ along).double() == pytest.approx(slope, rel=0.05, abs=1e-4)


def test_a_base_and_a_dose_that_is_not_saved_are_refused():
    with pytest.raises(ValueError, match="it has no trigger"):
        TrainedGate(geometry=Geometry(subject=find_subject("microcosm/llama/base"))).check()
    with pytest.raises(ValueError, match="dose 7 is not saved; its doses are 4, 6, 8"):
        replace(find_subject("microcosm/llama/clerk.fine"), dose=7)


def test_a_dose_is_part_of_the_run_and_of_its_rows_and_its_absence_is_not():
    subject = find_subject("microcosm/llama/clerk.fine")
    assert "dose" not in subject.config() | subject.cells()
    dosed = replace(subject, dose=8)
    assert (dosed.config()["dose"], dosed.cells()["dose"], dosed.whole().dose) == (8, 8, 8)
