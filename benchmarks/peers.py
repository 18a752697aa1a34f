"""transformers, TransformerLens and nnsight as their users call them: record in batches, sample under a steering hook.

None goes through our wrappers. All get the same tokens as ours.
"""

import copy
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import nnsight
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from interp.chat import Chat, pad_left, position_ids
from interp.models import LanguageModel


def lens(lm: LanguageModel) -> TransformerBridge:
    """Boot TransformerLens on a saved copy of the model, since a bridge rewires the model it is given."""
    with tempfile.TemporaryDirectory() as folder:
        lm.base.save_pretrained(folder)
        lm.tokenizer.save_pretrained(folder)
        return TransformerBridge.boot_transformers(folder, device="cpu", dtype=lm.dtype)


@torch.inference_mode()
def lens_record(tl: TransformerBridge, chats: Sequence[Chat], batches: Sequence[Sequence[int]]) -> Tensor:
    """Return the last token at every layer through ``run_with_cache`` with a filter of names."""
    names = [f"blocks.{layer}.hook_resid_post" for layer in range(tl.cfg.n_layers)]
    values = torch.empty(len(names), len(chats), tl.cfg.d_model)
    for batch in batches:
        ids, inputs = _inputs(chats, batch)
        _, cache = tl.run_with_cache(ids, names_filter=names, use_cache=False, **inputs)
        values[:, list(batch)] = torch.stack([cache[name][:, -1] for name in names]).float()
    return values


def traced(lm: LanguageModel) -> nnsight.NNsight:
    """Wrap the Hugging Face model for nnsight, which leaves the model itself unchanged."""
    return nnsight.NNsight(lm.base)


@torch.inference_mode()
def nnsight_record(model: Any, chats: Sequence[Chat], batches: Sequence[Sequence[int]]) -> Tensor:
    """Return the last token at every layer through a trace of the causal model."""
    layers = list(model.model.layers)
    values = torch.empty(len(layers), len(chats), model._module.config.hidden_size)
    for batch in batches:
        ids, inputs = _inputs(chats, batch)
        with model.trace(input_ids=ids, use_cache=False, **inputs):
            last = nnsight.save([layer.output[:, -1].clone() for layer in layers])
        values[:, list(batch)] = torch.stack(list(last)).float()
    return values


def _inputs(chats: Sequence[Chat], batch: Sequence[int]) -> tuple[Tensor, dict[str, Any]]:
    ids, mask = pad_left([chats[index] for index in batch], 0, "cpu")
    return ids, {"attention_mask": mask, "position_ids": position_ids(mask)}


@torch.inference_mode()
def hf_generate(
    lm: LanguageModel, ids: Tensor, mask: Tensor, layer: int, shift: Tensor, n: int, **options: Any
) -> Tensor:
    """Return ``n`` continuations per row of ``ids`` under one forward hook that adds ``shift`` to a block's output."""

    def hook(_module: object, _args: object, output: Tensor) -> Tensor:
        return output + shift

    handle = lm.layer(layer).register_forward_hook(hook)
    try:
        tokens: Any = lm.hf.generate(input_ids=ids, attention_mask=mask, num_return_sequences=n, **options)
    finally:
        handle.remove()
    return tokens[:, ids.shape[1] :]


@torch.inference_mode()
def lens_generate(
    tl: TransformerBridge, ids: Tensor, mask: Tensor, layer: int, shift: Tensor, n: int, **options: Any
) -> Tensor:
    """Return ``n`` continuations per row of ``ids`` under a hook; rows repeat, since no option does it."""
    rows = {"input": ids.repeat_interleave(n, 0), "attention_mask": mask.repeat_interleave(n, 0)}
    plain = {"return_type": "tokens", "prepend_bos": False, "verbose": False}
    with tl.hooks(fwd_hooks=[(f"blocks.{layer}.hook_resid_post", lambda h, hook: h + shift)]):
        tokens: Any = tl.generate(**rows, **plain, **options)
    return tokens[:, ids.shape[1] :]


def generating(lm: LanguageModel) -> Any:
    """Wrap the model for nnsight's ``generate``."""
    return nnsight.LanguageModel(lm.base, tokenizer=copy.deepcopy(lm.tokenizer))


@torch.inference_mode()
def nnsight_generate(
    model: Any, ids: Tensor, mask: Tensor, layer: int, shift: Tensor, n: int, **options: Any
) -> Tensor:
    """Return ``n`` continuations per row of ``ids``, every pass edited inside the trace."""
    with model.generate(num_return_sequences=n, **options) as tracer:
        with tracer.invoke({"input_ids": ids, "attention_mask": mask}):
            for _ in tracer.iter[:]:
                model.model.layers[layer].output = model.model.layers[layer].output + shift
        with tracer.invoke():
            tokens = nnsight.save(tracer.result)
    return tokens[:, ids.shape[1] :]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the peers' deprecation warnings while they are timed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
