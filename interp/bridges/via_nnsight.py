"""The same record and edit through nnsight, here or on the National Deep Inference Fabric (NDIF).

    >>> model = traceable(lm)                          # the modules of lm themselves, adapters on and off as before
    >>> record(model, chats, resid_post(range(lm.n_layers)), ["last_prompt"], edits=[steer])

A model too large for your machines is named instead of wrapped, and runs on NDIF (API key in ``NDIF_API_KEY``):

    >>> model = nnsight.TransformersModel("meta-llama/Llama-3.1-70B", task="text-generation")     # no weights here
    >>> record(model, chats, [Site("resid_post", 40)], ["last_prompt"], remote=True)

``remote`` is passed to nnsight's ``trace``: False runs here, True on NDIF, a URL on another host. ``"local"``
serialises the request as NDIF would receive it and runs it here; the tests use it. No request to a server has been
tested. nnsight unpickles the server's answer, so name only a host that you trust.

Importing this module imports nnsight, which gives every Python object a ``save`` method.
"""

from collections.abc import Sequence
from typing import Any

import nnsight
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from interp.chat import Chat, pad_left, position_ids
from interp.chat import positions as marked
from interp.edits import Edit, functions_of
from interp.hooks import Fn, module_of
from interp.models import LanguageModel
from interp.recording import Pool, Recording, buckets, check_request, one_token
from interp.runs.progress import Progress
from interp.sites import Site

Action = tuple[str, Any]
"""What to do with a hidden state: ``edit`` with a function, ``read`` with pools; for an edit of resid_mid, ``hold`` the
block input with None, then ``mid`` with a function."""
Visit = tuple[str, str, list[Action]]
"""Path of a module, its ``input`` or ``output``, and the actions there in order."""


def traceable(lm: LanguageModel) -> nnsight.NNsight:
    """Wrap the modules of ``lm`` for tracing, without a copy; the adapter that is active in ``lm`` acts.

    Load all adapters first: nnsight sees only the modules that exist when it wraps them.
    """
    return nnsight.NNsight(lm.base)


def record(
    model: nnsight.Envoy,
    chats: Sequence[Chat],
    sites: Sequence[Site],
    positions: Sequence[str],
    *,
    edits: Sequence[Edit] = (),
    batch_tokens: int = 4096,
    progress: Progress | None = None,
    remote: bool | str = False,
) -> Recording:
    """Record one vector per prompt, site and position: ``interp.recording.record`` inside an nnsight trace.

    Means over positions are taken where the model runs, so that only the means are sent back. An edit of ``resid_mid``
    is written as a change of ``attn_out``; the result differs from ours by one rounding of the residual.

    Raises:
        ValueError: If there is no prompt, a prompt lacks a named part, or the model has no such site.
    """
    check_request(chats, sites, positions)
    lm = _language_model(model)
    values = torch.empty(len(sites), len(positions), len(chats), lm.d_model)
    order = sorted(set(sites), key=lambda site: site.execution)
    for rows in buckets([len(chat) for chat in chats], batch_tokens, equal=lm.recurrent):
        batch = [chats[row] for row in rows]
        pools = [Pool(batch, name, max(map(len, batch)), torch.device("cpu")) for name in positions]
        readings, _ = _trace(model, batch, _visits(lm, _functions(edits, batch, rows), order, pools), None, remote)
        vectors = dict(zip(order, readings, strict=True))
        values[:, :, rows] = torch.stack([torch.stack(vectors[site]) for site in sites])
        if progress:
            progress(len(rows))
    return Recording(tuple(sites), tuple(positions), values)


def logits(
    model: nnsight.Envoy,
    chats: Sequence[Chat],
    *,
    position: str = "last_prompt",
    edits: Sequence[Edit] = (),
    batch_tokens: int = 4096,
    remote: bool | str = False,
) -> Float[Tensor, "prompt vocab"]:
    """Return the logits of the token after ``position`` under ``edits``, float32 on the CPU.

    Raises:
        ValueError: If ``position`` is several tokens in some prompt.
    """
    lm, logits_of = _language_model(model), dict[int, Tensor]()
    for rows in buckets([len(chat) for chat in chats], batch_tokens, equal=lm.recurrent):
        batch = [chats[row] for row in rows]
        at = one_token(batch, position, max(map(len, batch)))
        _, values = _trace(model, batch, _visits(lm, _functions(edits, batch, rows), [], []), at, remote)
        logits_of |= zip(rows, values, strict=True)
    return torch.stack([logits_of[row] for row in range(len(chats))])


def _language_model(model: Any) -> LanguageModel:
    """Return the wrapped modules as a ``LanguageModel``; they may have no weights here, and need no tokenizer."""
    return LanguageModel(model._module, PreTrainedTokenizerBase())


@torch.inference_mode()
def _trace(
    model: Any, batch: Sequence[Chat], visits: list[Visit], at: Pool | None, remote: bool | str
) -> tuple[list[list[Tensor]], Any]:
    """Run one left-padded batch; return the readings, and the logits at ``at``.

    Without ``at`` the pass stops after the last reading, and None stands for the logits.
    """
    ids, mask = pad_left(batch, 0, "cpu" if remote else _language_model(model).device)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": position_ids(mask), "use_cache": False}
    where: dict[str, Any] = {"remote": remote} if remote else {}
    if remote:
        nnsight.register("interp")  # the functions of this package are sent as source code
    logits = None
    with model.trace(**inputs, **where) as tracer:
        readings = nnsight.save(_visited(model, visits))
        if at is None:
            tracer.stop()
        else:
            logits = nnsight.save(at.mean(tracer.result.logits).cpu())
    return readings, logits


def _visited(model: nnsight.Envoy, visits: list[Visit]) -> list[list[Tensor]]:
    """Do the actions of each visit as the model runs; return the pooled values of each reading, in order."""
    readings: list[list[Tensor]] = []
    block_input = torch.empty(0)
    for path, side, actions in visits:
        module = model.get(path)
        value = getattr(module, side)
        h = before = value[0] if isinstance(value, tuple) else value
        for kind, what in actions:
            if kind == "read":
                readings.append([pool.mean(h).cpu() for pool in what])
            elif kind == "hold":
                block_input = h
            else:
                h = _edited(what, h) if kind == "edit" else _edited(what, block_input + h) - block_input
        if h is not before:
            setattr(module, side, (h, *value[1:]) if isinstance(value, tuple) else h)
    return readings


def _edited(function: Fn, h: Tensor) -> Tensor:
    edited = function(h)
    return h if edited is None else edited


def _functions(edits: Sequence[Edit], batch: Sequence[Chat], rows: Sequence[int]) -> dict[Site, Fn]:
    """Return the function of each edited site for one batch."""
    # Masks are computed here, not where the model runs: what the functions refer to is sent there, and tensors can be.
    masks, prompts = {name: marked(batch, name) for name in {edit.positions for edit in edits}}, torch.tensor(rows)
    return functions_of(edits, masks.__getitem__, lambda: prompts)


def _visits(lm: LanguageModel, functions: dict[Site, Fn], sites: Sequence[Site], pools: Sequence[Pool]) -> list[Visit]:
    """Order edits and readings as the model reaches them; a site is read after its edits."""
    actions: dict[Site, list[Action]] = {}
    for site in sorted({*functions, *sites}, key=lambda site: site.execution):
        module_of(lm, site)  # refuses a site that the model lacks
        if site in functions and site.name == "resid_mid":
            actions.setdefault(Site("resid_pre", site.layer), []).append(("hold", None))
            actions.setdefault(Site("attn_out", site.layer), []).append(("mid", functions[site]))
        elif site in functions:
            actions.setdefault(site, []).append(("edit", functions[site]))
        if site in sites:
            actions.setdefault(site, []).append(("read", list(pools)))
    return [(*_place(lm, site), actions[site]) for site in sorted(actions, key=lambda site: site.execution)]


def _place(lm: LanguageModel, site: Site) -> tuple[str, str]:
    """Return the path of the module that carries a site, and whether the site is its input or its output."""
    carrier, side = module_of(lm, site)
    return next(name for name, module in lm.base.named_modules() if module is carrier), side
