"""A number that is not finite is refused where it arises, with the name of what it is."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from interp.analysis.forced_choice import forced_choice
from interp.analysis.likelihood import next_token_log_probs, response_likelihood
from interp.analysis.moments import moments
from interp.edits import add
from interp.generation import Sampling, generate
from interp.models import LanguageModel
from interp.recording import open_store, record, record_to
from interp.sites import Site
from probes import accuracy, auroc
from tests import tiny

CHATS = tiny.chats()
ANSWERED = tiny.chats(response="Yes.")
SITE = Site("resid_post", 1)


def overflowing(dtype: torch.dtype) -> LanguageModel:
    """A model whose second MLP writes more than float16 holds, or infinity in other dtypes."""
    lm = tiny.model("llama", dtype=dtype)
    mlp: Any = lm.layers[1].mlp
    with torch.no_grad():
        mlp.up_proj.weight *= 1e3
        mlp.down_proj.weight.fill_(6e4 if dtype == torch.float16 else float("inf"))
    return lm


USES: dict[str, tuple[Callable[[LanguageModel], object], str]] = {
    "record": (
        lambda lm: record(lm, CHATS, [SITE], ["last_prompt"]),
        "record: resid_post.1 at 'last_prompt' of prompt",
    ),
    "moments": (lambda lm: moments(lm, CHATS, ["a"] * len(CHATS), [SITE], ["last_prompt"]), "record: resid_post.1"),
    "greedy": (
        lambda lm: generate(lm, CHATS, sampling=Sampling(5, 0.0)),
        "generate: the logits are not finite .* token 0",
    ),
    "sampled": (lambda lm: generate(lm, CHATS, n_samples=2, sampling=Sampling(5)), "generate: .* of prompt"),
    "top p": (lambda lm: generate(lm, CHATS, sampling=Sampling(5, top_p=0.9)), "generate: the logits are not finite"),
    "likelihood": (lambda lm: response_likelihood(lm, ANSWERED), "likelihood: that of response 0 is not finite"),
    "next token": (lambda lm: next_token_log_probs(lm, CHATS), "next token: the logits after prompt 0 are not finite"),
    "forced choice": (lambda lm: forced_choice(lm, [(a, a) for a in ANSWERED]), "likelihood: that of response 0"),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("use", USES)
def test_an_overflow_of_the_model_is_refused_by_every_use_of_it(use, dtype):
    function, message = USES[use]
    with pytest.raises(ValueError, match=message):
        function(overflowing(dtype))


def test_an_edit_that_overflows_is_refused_in_the_answer():
    steer = add(SITE, torch.ones(tiny.D_MODEL), coefficient=1e6, positions="response")
    lm = tiny.model("llama", dtype=torch.float16)
    with pytest.raises(ValueError, match=r"not finite in torch\.float16 at new token 1 of prompt"):
        generate(lm, CHATS, sampling=Sampling(6), edits=[steer])


def test_a_store_refuses_what_its_dtype_cannot_hold(tmp_path):
    lm = tiny.model("llama")
    with torch.no_grad():
        lm.embedding.get_parameter("weight").mul_(1e6)
    options: dict[str, Any] = {"capacity": len(CHATS), "dtype": "float16"}
    store = open_store(tmp_path / "f16.h5", lm, [Site("resid_pre", 0)], ["last_prompt"], **options)
    with store, pytest.raises(ValueError, match=r"resid_pre\.0 at last_prompt, prompt 0: not finite in float16"):
        record_to(store, lm, CHATS)


def test_a_score_that_is_not_a_number_has_no_auroc():
    y, scores = torch.tensor([True, False, True]), torch.tensor([0.1, float("nan"), 0.3])
    for metric in (auroc, accuracy):
        with pytest.raises(ValueError, match="1 are not a number"):
            metric(scores, y)
    assert float(auroc(torch.tensor([float("inf"), 0.0, 1.0]), y)) == 1.0
