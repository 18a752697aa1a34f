"""A model whose weights lie elsewhere between forward passes is measured as if they did not, or refused by name."""

from functools import partial

import pytest
import torch
from accelerate import cpu_offload, disk_offload

from interp.adapters import active_adapter
from interp.analysis.knockout import blocked_attention
from interp.analysis.likelihood import response_likelihood
from interp.analysis.lora import adapted_modules, loaded_updates, stream_gain, without_modules
from interp.analysis.orthogonalise import orthogonalised
from interp.decoding.sampling import Sampling
from interp.edits import ablate, add
from interp.generation import generate
from interp.models import AdapterError, wrap
from interp.recording import record
from interp.sites import SITE_NAMES, Site
from tests import tiny

SHIFT = torch.randn(tiny.D_MODEL, generator=torch.Generator().manual_seed(0))
SITES = [Site(name, layer) for layer in range(tiny.N_LAYERS) for name in SITE_NAMES]
EDITS = [add(Site("resid_post", 0), SHIFT), ablate(Site("mlp_out", 1), SHIFT)]


def offloaded(lm, where, folder):
    """Move all weights to main memory or to disk, behind accelerate's hooks; the modules keep none."""
    if where == "cpu":
        cpu_offload(lm.hf, execution_device=torch.device("cpu"))
    else:
        disk_offload(lm.hf, str(folder), execution_device=torch.device("cpu"))
    assert next(lm.hf.parameters()).is_meta
    return wrap(lm.hf, lm.tokenizer, name=lm.name)


def measured(lm):
    """Return a recording, one under edits, completions, and likelihoods under an attention knockout."""
    chats, answered = tiny.chats(), tiny.chats(response="Rest.")
    within = partial(blocked_attention, lm, range(lm.n_layers), queries="answer", keys="trigger")
    return (
        record(lm, chats, SITES, ["last_prompt", "trigger"]).values,
        record(lm, chats, SITES, ["last_prompt"], edits=EDITS).values,
        [c.token_ids for c in generate(lm, chats, n_samples=2, sampling=Sampling(4), edits=EDITS)],
        response_likelihood(lm, answered, within=lambda masks: within(masks)).log_probability,
        stream_gain(lm, "model.layers.1.self_attn.q_proj"),
    )


@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_what_is_measured_is_that_of_the_model_in_memory(where, tmp_path):
    expected = measured(tiny.model())
    values = measured(offloaded(tiny.model(), where, tmp_path))
    for a, b in zip(values, expected, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b


def test_weights_that_lie_elsewhere_are_neither_read_nor_changed(tmp_path):
    lm = offloaded(tiny.with_adapters(tiny.model(), "mine"), "cpu", tmp_path)
    with pytest.raises(ValueError, match="neither quantised nor offloaded"):
        orthogonalised(lm, SHIFT).__enter__()
    with pytest.raises(AdapterError, match="adapter 'mine': its weights are offloaded"):
        loaded_updates(lm, "mine")


def test_an_offloaded_adapter_switches(tmp_path):
    def both(lm):
        values = []
        for name in ("mine", None):
            with active_adapter(lm, name):
                values.append(record(lm, tiny.chats(), SITES[-1:], ["last_prompt"]).values)
        with without_modules(lm, "mine", adapted_modules(lm, "mine", "self_attn")):
            values.append(record(lm, tiny.chats(), SITES[-1:], ["last_prompt"]).values)
        return torch.stack(values)

    expected = both(tiny.with_adapters(tiny.model(), "mine"))
    assert torch.equal(both(offloaded(tiny.with_adapters(tiny.model(), "mine"), "cpu", tmp_path)), expected)
