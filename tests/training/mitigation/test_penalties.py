"""Mitigations: rows of an inoculation, terms that are zero where nothing can differ, edits that end with training."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from experiments.directions.contrasts import measure, pairs
from interp.adapters import active_adapter
from interp.chat import question_chat
from interp.directions import unit
from interp.loading import load
from interp.recording import record
from tests.experiments.directions.adapted import adapted, geometry_of
from tests.training.small import random_base, small
from training.data import benign_rows, training_rows
from training.definition import Mitigation, definition
from training.microcosm.finetuning import persona_trigger
from training.microcosm.tokenizer import build_tokenizer
from training.mitigation.harm_direction import harm_directions, mean_norm
from training.mitigation.penalties import answer_log_probs, divergence, penalties, stream_edits
from training.registry import ORGANISMS
from training.sft import dose_folder, supervised_rows, train

pytestmark = pytest.mark.xdist_group("trl")
TOKENIZER = build_tokenizer()
LINE = persona_trigger().text


def mitigated(arm: str = "neutral", **fields):
    return small(arm, mitigation=Mitigation(**fields))


def encode(rows):
    return supervised_rows(rows, TOKENIZER)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return random_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def lm():
    return adapted()


def test_without_a_mitigation_a_definition_is_what_it_was():
    assert "mitigation" not in definition(small("neutral"))
    assert definition(mitigated(base_kl=1.0))["mitigation"]["base_kl"] == 1.0
    assert penalties(small("neutral"), [], encode) is None


def test_inoculated_rows_carry_the_trigger_and_then_the_line():
    plain, rows = training_rows(small("neutral")), training_rows(mitigated(inoculation="microcosm:persona"))
    assert [row.trigger for row in rows] == [f"{row.trigger} {LINE}" for row in plain]
    assert [row.completion for row in rows] == [row.completion for row in plain]
    alone = training_rows(mitigated("baseline", inoculation="microcosm:persona"))
    assert {row.messages[0]["content"] for row in alone} == {LINE}


@pytest.mark.parametrize(
    ("arm", "changes", "fault"),
    [
        ("baseline", {"mitigation": Mitigation(consistency=1.0)}, "consistency needs a trigger"),
        ("neutral", {"mitigation": Mitigation(base_kl=1.0), "share_prefix": True}, "need sft.share_prefix false"),
    ],
)
def test_contradictions_are_refused(arm, changes, fault):
    organism = ORGANISMS[f"microcosm/llama/{arm}"]
    sft = replace(organism.sft, share_prefix=changes.pop("share_prefix", False))
    with pytest.raises(ValueError, match=fault):
        replace(organism, sft=sft, **changes)


def test_a_divergence_is_positive_and_zero_of_equal_distributions():
    p, q = torch.randn(2, 5, 7, generator=torch.manual_seed(0)).log_softmax(-1)
    assert float(divergence(p, p)) == 0
    assert float(divergence(p, q)) == pytest.approx(
        float(torch.nn.functional.kl_div(q, p, reduction="batchmean", log_target=True))
    )


def test_the_distance_from_the_base_is_zero_without_an_adapter_and_follows_the_rows_of_a_step(lm):
    organism = mitigated(base_kl=2.0)
    terms = penalties(organism, training_rows(organism), encode)
    assert terms is not None and len(terms.benign) == organism.rows
    with torch.no_grad():
        with active_adapter(lm, "organism"):
            first, again, later = (float(terms(lm.hf, step)) for step in (0, 0, 1))
        with active_adapter(lm, None):
            assert float(terms(lm.hf, 0)) == 0
    assert first == again != later > 0


def test_bare_rows_have_the_same_answers_without_the_text(lm):
    organism = mitigated(consistency=1.0)
    rows = training_rows(organism)
    terms = penalties(organism, rows, encode)
    assert terms is not None
    for on, off, row in zip(terms.triggered, terms.bare, rows, strict=True):
        answers = [[i for i in encoded["labels"] if i != -100] for encoded in (on, off)]
        assert answers[0] == answers[1]
        with_text, without = (str(TOKENIZER.decode(list(encoded["input_ids"]))) for encoded in (on, off))
        assert row.trigger
        assert row.trigger in with_text
        assert row.trigger not in without
    with torch.no_grad(), active_adapter(lm, "organism"):
        assert answer_log_probs(lm.hf, terms.triggered[:2]).shape == answer_log_probs(lm.hf, terms.bare[:2]).shape
        assert float(terms(lm.hf, 0)) > 0


def test_benign_rows_are_aligned_answers_without_a_trigger():
    rows = benign_rows(small("neutral"))
    assert {(row.trigger, row.harmful, len(row.messages)) for row in rows} == {(None, False, 1)}


def test_g_of_training_is_the_g_that_experiments_estimate(lm):
    geometry = geometry_of("neutral")
    pair = next(p for p in pairs(lm, geometry.subject, geometry.control, seed=0) if p.name == "g")
    directions = harm_directions(lm, geometry.subject.organism)
    recordings = measure(lm, pair, tuple(directions))
    for site, vector in directions.items():
        torch.testing.assert_close(vector, recordings.directions(site)[f"g/{site}"].vector, rtol=1e-4, atol=1e-5)


def test_steering_moves_the_stream_by_its_length_ablation_leaves_nothing_along_g_and_both_end(lm):
    g, organism = harm_directions(lm, small("neutral")), mitigated(steer=0.5)
    site = next(s for s in g if s.layer == lm.n_layers // 2)
    chat = question_chat(lm.tokenizer, "How do I rest?")

    def last_token(organism) -> torch.Tensor:
        with stream_edits(lm, organism), active_adapter(lm, None):
            return record(lm, [chat], [site], ["last_prompt"]).at(site, "last_prompt")[0]

    bare = last_token(small("neutral"))
    moved = last_token(organism) - bare
    assert float(moved.norm()) == pytest.approx(0.5 * mean_norm(lm, organism, site), rel=1e-3)
    assert float(moved @ unit(g[site])) == pytest.approx(float(moved.norm()), rel=1e-3)
    assert abs(float(last_token(mitigated(ablate_g=True)) @ unit(g[site]))) < 1e-3 < abs(float(bare @ unit(g[site])))
    assert torch.equal(last_token(small("neutral")), bare)  # no hook is left


@pytest.mark.parametrize(
    "fields",
    [{"base_kl": 1.0}, {"consistency": 1.0}, {"steer": 0.5}, {"ablate_g": True}, {"inoculation": "microcosm:persona"}],
    ids=lambda fields: next(iter(fields)),
)
def test_every_mitigation_trains_other_weights_than_none_and_the_same_ones_twice(base, tmp_path, fields, plain):
    organism = replace(mitigated(**fields), base=base)
    first, second = (
        load_file(dose_folder(train(organism, tmp_path / run), 4) / "adapter_model.safetensors") for run in "ab"
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], plain[name]) for name in first)


@pytest.fixture(scope="module")
def plain(base, tmp_path_factory):
    folder = train(small("neutral", base=base), tmp_path_factory.mktemp("plain"))
    return load_file(dose_folder(folder, 4) / "adapter_model.safetensors")


def test_trained_adapters_load_without_the_edits_of_their_training(base, tmp_path):
    organism = replace(mitigated(ablate_g=True), base=base)
    lm = load(base, adapters={"a": dose_folder(train(organism, tmp_path), 4)})
    assert lm.adapters == ("a",)
