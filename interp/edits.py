"""Edits of the residual stream: activation addition, directional ablation, clamping, patching, and their controls.

The arithmetic is pure (float32 inside, the dtype of ``h`` outside, never in place). An ``Edit`` says what is done, at
which site and at which named positions; ``editing`` applies several of them to every forward pass of a model, in order,
and leaves nothing behind.

    >>> steer = add(Site("resid_post", 12), g, coefficient=4.0, positions="answer")
    >>> with editing(lm, [steer], masks):
    ...     lm.hf(input_ids)

A generating model sees one new token a step, so positions of the prompt exist in the first pass only. ``masks`` is
therefore a function of the name, asked at every pass: it answers for the tokens of *that* pass (``Passes`` does).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.chat import Chat
from interp.chat import positions as marked
from interp.directions import orthonormal, unit_rows
from interp.hooks import hooked
from interp.models import LanguageModel
from interp.sites import Site

Kind = Literal["add", "ablate", "clamp", "patch"]
Masks = Callable[[str], Bool[Tensor, "batch pos"] | bool]
GENERATED = frozenset({"all", "answer", "response"})
"""Position names that every generated token carries; all others live in the prompt."""


def activation_addition(
    h: Float[Tensor, "*batch d_model"], v: Float[Tensor, " d_model"], c: float | int = 1.0
) -> Float[Tensor, "*batch d_model"]:
    """Return h + c v, raw scale.

    Not evidence for: the meaning of ``v``, unless a random direction of the same norm does less at equal coherence.

    Source: Turner et al. 2023 (arXiv:2308.10248).
    """
    return (h.float() + c * v.float()).to(h.dtype)


def directional_ablation(
    h: Float[Tensor, "*batch d_model"], V: Float[Tensor, "n d_model"]
) -> Float[Tensor, "*batch d_model"]:
    """Remove the component of ``h`` in the span of the rows of ``V``. Idempotent.

    Raises:
        ValueError: If ``V`` is not finite or spans nothing.

    Not evidence for: use of the direction by the model, unless a random direction does less.

    Source: Arditi et al. 2024 (arXiv:2406.11717), directional ablation.
    """
    return _set_coordinates(h, orthonormal(V), 0.0)


def clamp_to(
    h: Float[Tensor, "*batch d_model"], V: Float[Tensor, "n d_model"], target: Float[Tensor, "..."]
) -> Float[Tensor, "*batch d_model"]:
    """Set the projection of ``h`` onto the span of the rows of ``V`` to that of ``target``. Idempotent.

    Args:
        h: Activations.
        V: Rows that need be neither orthogonal nor of norm 1.
        target: Either a point (d_model), whose projection is taken, or one component along the unit of each row (n).

    Raises:
        ValueError: If ``V`` spans nothing, ``target`` has neither shape, or components are given for dependent rows.
    """
    basis = orthonormal(V)
    return _set_coordinates(h, basis, _coordinates(target, V, basis))


def _set_coordinates(
    h: Tensor, basis: Tensor, target: Tensor | float, along: Tensor | None = None
) -> Float[Tensor, "*batch d_model"]:
    """Move ``h`` along the rows of ``along`` by what its coordinates in ``basis`` lack to ``target``."""
    x = h.float()
    return (x + (target - x @ basis.T) @ (basis if along is None else along)).to(h.dtype)


def _coordinates(target: Tensor, V: Tensor, basis: Tensor) -> Float[Tensor, " rank"]:
    if target.shape == V.shape[-1:]:
        return basis @ target.float()
    if target.shape != V.shape[:1] or len(basis) != len(V):
        raise ValueError(
            f"clamp target of shape {tuple(target.shape)}: want ({V.shape[-1]},) or one value for each of "
            f"{len(V)} independent vectors (rank {len(basis)})"
        )
    return torch.linalg.solve(unit_rows(V).double() @ basis.double().T, target.double()).float()


@dataclass(frozen=True, eq=False)
class Edit:
    """One change of the residual stream at one site and one named set of positions.

    ``value`` is the coefficient of an addition (one a vector) or the target of a clamp (a point of width d_model, or
    one component a vector). ``along``, set by controls only, holds the orthonormal rows along which the displacement
    that the edit would make along ``vectors`` is written instead.
    """

    kind: Kind
    site: Site
    positions: str
    vectors: Float[Tensor, "rank d_model"]
    value: Float[Tensor, "..."] | None = None
    along: Float[Tensor, "rank d_model"] | None = None

    def __str__(self) -> str:
        return f"{self.kind} at {self.site}, positions {self.positions!r}, {len(self.vectors)} vectors"


def add(
    site: Site, vector: Float[Tensor, " d_model"], *, coefficient: float | int = 1.0, positions: str = "all"
) -> Edit:
    """Add ``coefficient`` times ``vector`` (raw scale) at ``positions``."""
    return Edit("add", site, positions, _rows(vector), torch.tensor([float(coefficient)]))


def ablate(site: Site, vectors: Float[Tensor, "*n d_model"], *, positions: str = "all") -> Edit:
    """Remove the span of ``vectors`` at ``positions``. Zero is rarely the off-trigger point: compare ``clamp``."""
    return Edit("ablate", site, positions, _rows(vectors))


def clamp(
    site: Site,
    vectors: Float[Tensor, "*n d_model"],
    target: Float[Tensor, "..."] | float | int,
    *,
    positions: str = "all",
) -> Edit:
    """Set the projection onto the span of ``vectors`` to that of ``target`` (see ``clamp_to``) at ``positions``."""
    rows = _rows(vectors)
    value = torch.as_tensor(target, dtype=torch.float32).reshape(-1)
    _coordinates(value, rows, orthonormal(rows))
    return Edit("clamp", site, positions, rows, value)


def patch(site: Site, values: Float[Tensor, "*n d_model"], *, positions: str = "all") -> Edit:
    """Replace the residual stream at ``positions`` by ``values``: one row for all prompts, or row i for prompt i."""
    return Edit("patch", site, positions, _rows(values))


def _rows(vectors: Tensor) -> Float[Tensor, "n d_model"]:
    rows = torch.atleast_2d(vectors.detach()).float()
    if rows.ndim != 2 or not bool(torch.isfinite(rows).all()):
        raise ValueError(f"edit vectors of shape {tuple(vectors.shape)}: want finite rows of width d_model")
    return rows


def random_control(edit: Edit, seed: int, *, match: Literal["vectors", "displacement"] = "vectors") -> Edit:
    """Return the same edit with its vectors turned at random: same norms, same mutual angles, no meaning.

    Args:
        edit: An addition, ablation or clamp.
        seed: Seed of the random rotation.
        match: ``vectors`` runs the same operation on the random vectors. ``displacement`` moves every token along them
            by exactly the coordinates by which ``edit`` would have moved it: the stronger control for ablations and
            clamps, whose random version otherwise hardly moves anything.
    """
    return _turned(edit, torch.empty(0, edit.vectors.shape[-1]), seed, match)


def orthogonal_control(
    edit: Edit,
    to: Float[Tensor, "*n d_model"] | None = None,
    seed: int = 0,
    *,
    match: Literal["vectors", "displacement"] = "vectors",
) -> Edit:
    """Return ``random_control`` restricted to the orthogonal complement of ``to`` (default: the edit's own vectors)."""
    return _turned(edit, orthonormal(_rows(edit.vectors if to is None else to)), seed, match)


def _turned(edit: Edit, avoid: Tensor, seed: int, match: str) -> Edit:
    if edit.kind == "patch" or edit.along is not None:
        raise ValueError(f"{edit}: a control is defined for additions, ablations and clamps that are not controls")
    basis = orthonormal(edit.vectors)
    turned = _random_rows(len(basis), avoid.to(basis), seed)
    if match == "displacement" and edit.kind != "add":
        return replace(edit, along=turned)
    return replace(edit, vectors=edit.vectors @ basis.T @ turned)


def _random_rows(rank: int, avoid: Tensor, seed: int) -> Float[Tensor, "rank d_model"]:
    width = avoid.shape[-1]
    if rank + len(avoid) > width:
        raise ValueError(f"a random control of rank {rank} away from {len(avoid)} vectors: only {width} dimensions")
    noise = torch.randn(rank, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    away = avoid.double().cpu()
    return torch.linalg.qr((noise - noise @ away.T @ away).T).Q.T.float().to(avoid.device)


class Passes:
    """The masks of the passes of a generating model: the left-padded prompts first, then one new token a row.

    Call it with a position name. The prompt's names mark prompt tokens in the first pass and nothing later; ``answer``
    is the last prompt token, then every new token. ``step`` says which new token the pass now running is fed.
    """

    def __init__(self, chats: Sequence[Chat], width: int, device: torch.device) -> None:
        self._chats, self._width, self._device, self._known = chats, width, device, dict[str, Tensor]()
        self.step: int | None = None

    def __call__(self, name: str) -> Bool[Tensor, "batch pos"] | bool:
        """Return the mask of the pass now running, or one truth value for all of it."""
        if self.step is not None:
            return name in GENERATED or name == f"response[{self.step}]"
        if name.startswith("response"):
            return False
        if name not in self._known:
            self._known[name] = marked(self._chats, name, width=self._width).to(self._device)
        return self._known[name]


@contextmanager
def editing(
    lm: LanguageModel,
    edits: Sequence[Edit],
    masks: Masks,
    *,
    rows: Callable[[], Int[Tensor, " batch"]] | None = None,
) -> Iterator[None]:
    """Apply ``edits`` in every forward pass of ``lm``; edits of one site run in the order given.

    Args:
        lm: The model.
        edits: What to change; none at all costs nothing.
        masks: Position name -> the positions of the pass now running (True or False stands for all or none of them).
        rows: The prompt index of each row of the pass now running; needed by a ``patch`` with a row per prompt.

    Raises:
        ValueError: In the forward pass, if a mask does not have the shape of the batch, or ``rows`` is missing.
    """
    sites = dict.fromkeys(edit.site for edit in edits)
    chains = {site: [(e.positions, operation(e, rows)) for e in edits if e.site == site] for site in sites}
    with hooked(lm, {site: chain(site, steps, masks) for site, steps in chains.items()}):
        yield


Operation = Callable[[Tensor], Tensor]
"""One edit as a function of h alone."""


def operation(edit: Edit, rows: Callable[[], Tensor] | None) -> Operation:
    """Return ``edit`` as a function of h alone, with everything that does not depend on h computed once.

    Args:
        edit: What to change; its site and positions are the caller's business.
        rows: The prompt index of each row of the pass now running; needed by a ``patch`` with a row per prompt.
    """
    if edit.kind == "patch":
        return lambda h: _patched(h, edit, rows)
    if edit.kind == "add":
        shift = _on_device((edit.value if edit.value is not None else torch.ones(1)) @ edit.vectors)
        return lambda h: activation_addition(h, shift(h))
    basis = orthonormal(edit.vectors)
    target = torch.zeros(len(basis)) if edit.value is None else _coordinates(edit.value, edit.vectors, basis)
    q, t, along = (_on_device(x) for x in (basis, target, basis if edit.along is None else edit.along))
    return lambda h: _set_coordinates(h, q(h), t(h), along(h))


def _on_device(tensor: Tensor) -> Operation:
    """Return ``tensor`` on the device of the activations, copied there once."""
    held = {tensor.device: tensor}

    def get(h: Tensor) -> Tensor:
        if h.device not in held:
            held[h.device] = tensor.to(h.device)
        return held[h.device]

    return get


def _patched(h: Tensor, edit: Edit, rows: Callable[[], Tensor] | None) -> Tensor:
    if len(edit.vectors) == 1:
        return edit.vectors.to(h).expand_as(h)
    if rows is None:
        raise ValueError(f"{edit}: one row per prompt needs to know the prompt of each row (rows=...)")
    return edit.vectors[rows().to(edit.vectors.device)].to(h)[:, None].expand_as(h)


def chain(site: Site, steps: Sequence[tuple[str, Operation]], masks: Masks) -> Callable[[Tensor], Tensor | None]:
    """Return one hook that runs the edits of one site in order, each at its own positions.

    Args:
        site: Named in errors only.
        steps: Position name and ``operation`` of each edit.
        masks: As in ``editing``; asked at every pass. Where every mask is False the hook returns None.
    """

    def run(h: Tensor) -> Tensor | None:
        edited = h
        for name, edit in steps:
            mask = masks(name)
            if mask is True:
                edited = edit(edited)
            elif mask is not False:
                edited = torch.where(_fitting(mask, h, site, name)[..., None], edit(edited), edited)
        return None if edited is h else edited

    return run


def _fitting(mask: Bool[Tensor, "batch pos"], h: Tensor, site: Site, name: str) -> Bool[Tensor, "batch pos"]:
    if mask.shape != h.shape[:2]:
        raise ValueError(
            f"edit at {site}: positions {name!r} mark {tuple(mask.shape)} tokens, the pass has {tuple(h.shape[:2])}"
        )
    return mask.to(h.device)
