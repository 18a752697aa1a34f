"""The same record and edit through nnsight, here or on the National Deep Inference Fabric (NDIF).

    >>> model = traceable(lm)                          # the modules of lm themselves, adapters on and off as before
    >>> record(model, chats, resid_post(range(lm.n_layers)), ["last_prompt"], edits=[steer])

A model that no machine of yours holds is named instead of wrapped, and runs on NDIF (API key in ``NDIF_API_KEY``):

    >>> model = nnsight.TransformersModel("meta-llama/Llama-3.1-70B", task="text-generation")     # no weights here
    >>> record(model, chats, [Site("resid_post", 40)], ["last_prompt"], remote=True)

``remote`` is handed to nnsight's ``trace``: False runs here, True on NDIF, a URL on another host, and ``"local"``
serialises the request as NDIF would get it and runs it here, which is how the tests run it. No request to a server has
been tested. The server's answer is unpickled by nnsight, so name only a host that you trust.

Importing this module imports nnsight, which gives every Python object a ``save`` method.
"""

from collections.abc import Callable, Sequence
from typing import Any

import nnsight
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from interp.chat import Chat, pad_left, position_ids
from interp.chat import positions as marked
from interp.edits import Edit, chain, operation
from interp.models import LanguageModel
from interp.recording import Pool, Progress, Recording, buckets
from interp.sites import Site, block_of

Action = tuple[str, Any]
"""What to do with a hidden state: ``edit`` or ``mid`` with a function, ``read`` with pools, ``hold`` with None."""
Visit = tuple[str, str, list[Action]]
"""Path of a module, its ``input`` or ``output``, and the actions there in order."""


def traceable(lm: LanguageModel) -> nnsight.NNsight:
    """Wrap the modules of ``lm`` for tracing, without a copy; whichever adapter is active in ``lm`` acts.

    Load all adapters first: nnsight knows the modules that are there when it wraps them.
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
    """Record one vector a prompt at each site and position: ``interp.recording.record`` inside an nnsight trace.

    Means over positions are taken where the model runs, so that only they travel. An edit of ``resid_mid`` is written
    as a change of ``attn_out``; it differs from ours by one rounding of the residual.

    Raises:
        ValueError: If there is no prompt, a prompt lacks a named part, or the model has no such site.
    """
    if not chats or not sites or not positions:
        raise ValueError(f"record: {len(chats)} prompts, {len(sites)} sites, {len(positions)} positions; want some")
    lm = _language_model(model)
    values = torch.empty(len(sites), len(positions), len(chats), lm.d_model)
    order = sorted(set(sites), key=lambda site: site.execution)
    for rows in buckets([len(chat) for chat in chats], batch_tokens):
        batch = [chats[row] for row in rows]
        pools = [Pool(batch, name, max(map(len, batch)), torch.device("cpu")) for name in positions]
        taken, _ = _trace(model, batch, _visits(lm, _functions(edits, batch, rows), order, pools), None, remote)
        found = dict(zip(order, taken, strict=True))
        values[:, :, rows] = torch.stack([torch.stack(found[site]) for site in sites])
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
        ValueError: If ``position`` is more than one token somewhere.
    """
    lm, found = _language_model(model), dict[int, Tensor]()
    for rows in buckets([len(chat) for chat in chats], batch_tokens):
        batch = [chats[row] for row in rows]
        at = Pool(batch, position, max(map(len, batch)), torch.device("cpu"))
        if not at.single:
            raise ValueError(f"position {position!r}: several tokens in some prompt; logits are read at one")
        _, made = _trace(model, batch, _visits(lm, _functions(edits, batch, rows), [], []), at, remote)
        found |= zip(rows, made, strict=True)
    return torch.stack([found[row] for row in range(len(chats))])


def _language_model(model: Any) -> LanguageModel:
    """Our view of the wrapped modules, which may have no weights here; the chats are tokenised already."""
    return LanguageModel(model._module, PreTrainedTokenizerBase())


@torch.inference_mode()
def _trace(
    model: Any, batch: Sequence[Chat], visits: list[Visit], at: Pool | None, remote: bool | str
) -> tuple[list[list[Tensor]], Any]:
    """Run one left-padded batch; return what was read, and the logits at ``at``, or None and an early end without."""
    ids, mask = pad_left(batch, 0, "cpu" if remote else _language_model(model).device)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": position_ids(mask), "use_cache": False}
    where: dict[str, Any] = {"remote": remote} if remote else {}
    if remote:
        nnsight.register("interp")  # the functions of this package travel as source
    made = None
    with model.trace(**inputs, **where) as tracer:
        taken = nnsight.save(_visited(model, visits))
        if at is None:
            tracer.stop()
        else:
            made = nnsight.save(at.mean(tracer.result.logits).cpu())
    return taken, made


def _visited(model: nnsight.Envoy, visits: list[Visit]) -> list[list[Tensor]]:
    """Walk through the model as it runs; return the pooled values of each reading, in order."""
    taken: list[list[Tensor]] = []
    held = torch.empty(0)
    for path, side, actions in visits:
        module = model.get(path)
        value = getattr(module, side)
        h = before = value[0] if isinstance(value, tuple) else value
        for kind, what in actions:
            if kind == "read":
                taken.append([pool.mean(h).cpu() for pool in what])
            elif kind == "hold":
                held = h
            else:
                h = _edited(what, h) if kind == "edit" else _edited(what, held + h) - held
        if h is not before:
            setattr(module, side, (h, *value[1:]) if isinstance(value, tuple) else h)
    return taken


def _edited(function: Callable[[Tensor], Tensor | None], h: Tensor) -> Tensor:
    edited = function(h)
    return h if edited is None else edited


def _functions(
    edits: Sequence[Edit], batch: Sequence[Chat], rows: Sequence[int]
) -> dict[Site, Callable[[Tensor], Tensor | None]]:
    """Return the function of each edited site for one batch: the very chains of ``interp.edits``."""
    masks = {name: marked(batch, name) for name in {edit.positions for edit in edits}}
    prompts, functions = torch.tensor(rows), {}
    for site in dict.fromkeys(edit.site for edit in edits):
        steps = [(e.positions, operation(e, lambda: prompts)) for e in edits if e.site == site]
        functions[site] = chain(site, steps, masks.__getitem__)
    return functions


def _visits(
    lm: LanguageModel,
    functions: dict[Site, Callable[[Tensor], Tensor | None]],
    sites: Sequence[Site],
    pools: Sequence[Pool],
) -> list[Visit]:
    """Order edits and readings as the model reaches them; at one site edits come first."""
    actions: dict[Site, list[Action]] = {}
    for site in sorted({*functions, *sites}, key=lambda site: site.execution):
        _place(lm, site)
        if site in functions and site.name == "resid_mid":
            actions.setdefault(Site("resid_pre", site.layer), []).append(("hold", None))
            actions.setdefault(Site("attn_out", site.layer), []).append(("mid", functions[site]))
        elif site in functions:
            actions.setdefault(site, []).append(("edit", functions[site]))
        if site in sites:
            actions.setdefault(site, []).append(("read", list(pools)))
    return [(*_place(lm, site), actions[site]) for site in sorted(actions, key=lambda site: site.execution)]


def _place(lm: LanguageModel, site: Site) -> tuple[str, str]:
    """Path of the module that carries a site, and on which side of it."""
    try:
        layer = lm.layer(site.layer)
    except ValueError:
        raise ValueError(f"site {site}: the model has layers 0..{lm.n_layers - 1}") from None
    path = next(name for name, module in lm.base.named_modules() if module is layer)
    if site.name in ("resid_pre", "resid_post"):
        return path, "input" if site.name == "resid_pre" else "output"
    if site.name == "resid_mid" and getattr(layer, "use_parallel_residual", False):
        raise ValueError(f"site {site}: attention and MLP of {lm.family} run in parallel, so it has no resid_mid")
    part = block_of(lm.family)
    return (
        (f"{path}.{part.mid}", "input")
        if site.name == "resid_mid"
        else (f"{path}.{getattr(part, site.name)}", "output")
    )
