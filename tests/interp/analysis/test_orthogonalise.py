"""An orthogonalised model writes nothing along the direction, is the ablated model, and is itself again afterwards."""

from typing import Any

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from interp import sites
from interp.adapters import active_adapter
from interp.analysis.orthogonalise import orthogonalised, writer_ablation
from interp.chat import pad_left, position_ids, positions
from interp.directions import random_like
from interp.edits import editing
from interp.generation import Sampling, generate
from interp.hooks import hooked
from interp.sites import SITE_NAMES, Site, block_of
from tests import tiny

EXACT = [family for family in tiny.FAMILIES if not block_of(tiny.model(family).family).post_normed]
INEXACT = [family for family in tiny.FAMILIES if family not in EXACT]
BIASED = ["llama", "gpt_neox", "gpt2"]
LORAS = [
    *((family, {}) for family in EXACT),
    *((f, {k: True}) for f in ("llama", "gpt2") for k in ("use_rslora", "lora_bias")),
]
TOLERANCE = 1e-5


def rows(n: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, tiny.D_MODEL, generator=torch.Generator().manual_seed(seed))


def run(lm, edits=()):
    """Return the stream at every site and the logits, both at the real tokens."""
    chats, seen = tiny.chats(), {}
    ids, mask = pad_left(chats, 0, "cpu")
    parallel = lm.family == "gpt_neox"
    sites = [Site(n, i) for n in SITE_NAMES for i in range(lm.n_layers) if not (parallel and n == "resid_mid")]
    reads = {site: lambda h, site=site: seen.__setitem__(site, h[mask.bool()]) for site in sites}
    with torch.no_grad(), editing(lm, edits, lambda name: positions(chats, name)), hooked(lm, reads):
        out = lm.hf(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False)
    return seen, out.logits[mask.bool()]


def assert_writes_nothing_along(lm, vectors):
    units = torch.nn.functional.normalize(torch.atleast_2d(vectors))
    for site, h in run(lm)[0].items():
        assert ((h @ units.T).abs() <= TOLERANCE * h.norm(dim=-1, keepdim=True).clamp_min(1)).all(), site


def assert_is_the_ablated_model(lm, vectors):
    ablated, want = run(lm, writer_ablation(lm, vectors))
    plain = run(lm)[1]
    with orthogonalised(lm, vectors):
        assert_writes_nothing_along(lm, vectors)
        stream, logits = run(lm)
    torch.testing.assert_close(logits, want, atol=TOLERANCE, rtol=TOLERANCE)
    for site, h in stream.items():
        torch.testing.assert_close(h, ablated[site], atol=TOLERANCE, rtol=TOLERANCE)
    assert (logits - plain).abs().max() > 1e-2


@pytest.mark.parametrize("family", EXACT)
@pytest.mark.parametrize("n", [1, 3])
def test_weights_without_the_span_are_every_writer_ablated(family, n):
    assert_is_the_ablated_model(tiny.model(family), rows(n))


@pytest.mark.parametrize("family", BIASED)
def test_biases_write_too(family):
    biases: dict[str, Any] = {"attention_bias": True, "mlp_bias": True} if family == "llama" else {}
    lm = tiny.model(family, **biases)
    assert any(name.endswith("bias") for name, _ in lm.layers.named_parameters())
    assert_is_the_ablated_model(lm, rows())


@pytest.mark.parametrize(("family", "lora"), LORAS, ids=str)
def test_adapters_write_nothing_along_it_either_and_still_switch(family, lora):
    lm = tiny.with_adapters(tiny.model(family), "first", "second", **lora)
    for adapter in (None, "first", "second"):
        with active_adapter(lm, adapter):
            assert_is_the_ablated_model(lm, rows())
    with orthogonalised(lm, rows()):
        for adapter in ("second", None):
            with active_adapter(lm, adapter):
                assert_writes_nothing_along(lm, rows())


def test_an_adapted_or_copied_embedding_is_covered():
    for lora in ({"target_modules": ["embed_tokens", "down_proj"]}, {"modules_to_save": ["embed_tokens"]}):
        assert_is_the_ablated_model(adapted(tiny.model("llama"), **lora), rows())


def adapted(lm, **lora):
    """The model under one adapter of random weights."""
    from peft import LoraConfig, get_peft_model

    from interp.models import wrap

    config = LoraConfig(**{"r": 2, "target_modules": ["o_proj"], **lora})
    torch.manual_seed(2)
    hf = get_peft_model(lm.hf, config)
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return wrap(hf, lm.tokenizer, name=lm.name)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_a_tied_unembedding_does_not_change(family):
    lm = tiny.model(family, tie_word_embeddings=True)
    head = lm.lm_head.get_parameter("weight")
    assert head is lm.embedding.weight
    before = head.clone()
    with orthogonalised(lm, rows()):
        assert lm.lm_head.weight is head and lm.embedding.weight is not head
        assert torch.equal(head, before)
    assert lm.embedding.weight is lm.lm_head.weight
    assert_is_the_ablated_model(lm, rows())


@pytest.mark.parametrize("adapter", [False, True])
def test_afterwards_every_parameter_and_logit_is_the_same_to_the_bit(lm, adapter):
    lm = tiny.with_adapters(lm, "first") if adapter else lm
    parameters = {name: (parameter, parameter.clone()) for name, parameter in lm.hf.named_parameters()}
    before = run(lm)[1]
    with orthogonalised(lm, rows(), inexact=True):
        assert not torch.equal(run(lm)[1], before)
    assert torch.equal(run(lm)[1], before)
    now = dict(lm.hf.named_parameters())
    assert set(now) == set(parameters)
    for name, (parameter, value) in parameters.items():
        assert now[name] is parameter and torch.equal(parameter, value), name


def test_it_is_restored_after_an_error_and_blocks_nest(llama):
    before = run(llama)[1]
    with pytest.raises(ZeroDivisionError), orthogonalised(llama, rows(1)), orthogonalised(llama, rows(1, seed=1)):
        assert_writes_nothing_along(llama, rows(1, seed=1))
        raise ZeroDivisionError
    assert torch.equal(run(llama)[1], before)


def test_the_result_depends_on_the_span_only(llama):
    V = rows(2)
    with orthogonalised(llama, V):
        want = run(llama)[1]
    with orthogonalised(llama, torch.stack([V[0] + V[1], 7 * V[1], V[0]])):
        torch.testing.assert_close(run(llama)[1], want, atol=TOLERANCE, rtol=TOLERANCE)


def test_generation_is_that_of_the_ablated_model(llama):
    sampling = Sampling(max_new_tokens=12, temperature=0.0)
    want = generate(llama, tiny.chats(), sampling=sampling, edits=writer_ablation(llama, rows()))
    plain = generate(llama, tiny.chats(), sampling=sampling)
    with orthogonalised(llama, rows()):
        assert generate(llama, tiny.chats(), sampling=sampling) == want != plain


def test_a_random_direction_is_the_control(llama):
    control = random_like(rows(1)[0], seed=0)
    assert_is_the_ablated_model(llama, control)


@pytest.mark.parametrize("family", INEXACT)
def test_behind_post_norms_consent_is_asked_and_the_component_is_zero_but_the_scale_is_not_the_ablated_one(family):
    lm, V = tiny.model(family), rows()
    with pytest.raises(ValueError, match="post-norms make weight orthogonalisation inexact") as caught:
        orthogonalised(lm, V).__enter__()
    assert "\n" not in str(caught.value)
    want = run(lm, writer_ablation(lm, V))[1]
    with orthogonalised(lm, V, inexact=True):
        assert_writes_nothing_along(lm, V)
        assert (run(lm)[1] - want).abs().max() > 1e-3


def test_hooks_ablate_every_family_exactly(lm):
    V = rows()
    units = V / V.norm(dim=-1, keepdim=True)
    for site, h in run(lm, writer_ablation(lm, V))[0].items():
        assert (h @ units.T).abs().max() <= TOLERANCE * max(1.0, float(h.norm(dim=-1).max())), site


def test_in_bfloat16_the_component_is_that_of_rounding():
    lm, V = tiny.model("llama", dtype=torch.bfloat16), rows(1)
    with orthogonalised(lm, V):
        assert lm.embedding.weight.dtype == torch.bfloat16
        seen, _ = run(lm)
    for h in seen.values():
        assert ((h.float() @ V.T).abs() <= 0.02 * h.float().norm(dim=-1, keepdim=True) * V.norm()).all()


def test_what_cannot_be_done_exactly_is_refused_before_anything_changes(llama, monkeypatch):
    dora = tiny.with_adapters(llama, "first", use_dora=True)
    before = dict(dora.hf.named_parameters())
    with pytest.raises(ValueError, match=r"self_attn\.o_proj of layer 0: a Dora\w+ cannot be orthogonalised exactly"):
        orthogonalised(dora, rows()).__enter__()
    assert all(parameter is before[name] for name, parameter in dora.hf.named_parameters())
    other = tiny.model("llama")
    offloaded = torch.nn.Parameter(torch.zeros(16, 32, device="meta"))
    other.layer(1).get_submodule("mlp.down_proj").register_parameter("weight", offloaded)
    with pytest.raises(ValueError, match=r"mlp\.down_proj of layer 1: .* on meta cannot be orthogonalised"):
        orthogonalised(other, rows()).__enter__()
    one = tiny.model("llama")
    one.base.set_output_embeddings(one.embedding)
    with pytest.raises(ValueError, match="embedding and unembedding are one module"):
        orthogonalised(one, rows()).__enter__()
    monkeypatch.setattr(sites, "BLOCKS", {"gpt2": block_of("gpt2")})
    with pytest.raises(ValueError, match="family 'llama': attn_out, resid_mid and mlp_out are not known"):
        orthogonalised(tiny.model("llama"), rows()).__enter__()


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_writers_of_every_family_are_linear_modules_of_its_layers(family):
    lm = tiny.model(family)
    writers = block_of(lm.family).writers
    assert writers is not None
    for path in writers:
        assert isinstance(lm.layer(0).get_submodule(path), (torch.nn.Linear, Conv1D))
