"""Edits of the residual stream: activation addition, directional ablation, clamping, patching, and their controls.

The arithmetic is in pure functions (float32 inside, the dtype of ``h`` outside, never in place). An ``Edit`` names an
operation, a site and positions; ``editing`` applies several of them, in order, to every forward pass of a model, and
removes its hooks on exit.

    >>> steer = add(Site("resid_post", 12), g, coefficient=4.0, positions="answer")
    >>> with editing(lm, [steer], masks):
    ...     lm.hf(input_ids)

While a model generates, each pass after the first sees one new token, so the prompt's positions exist in the first
pass only. ``masks`` is therefore a function of a position name that is called in every pass and marks the tokens of
*that* pass. ``batch_masks`` serves single passes and ``Passes`` generation.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.chat import Chat
from interp.chat import positions as marked
from interp.directions import norms, orthonormal, unit_rows
from interp.hooks import Fn, hooked
from interp.models import LanguageModel
from interp.sites import Site

Kind = Literal["add", "ablate", "clamp", "patch"]
Masks = Callable[[str], Bool[Tensor, "batch pos"] | bool]
GENERATED = frozenset({"all", "answer", "response"})
"""Position names that include every generated token; all others mark prompt tokens only."""


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
    """Move ``h`` along the rows of ``along`` by the difference between ``target`` and its coordinates in ``basis``.

    With ``along`` = ``basis`` (the default) this sets the coordinates to ``target``. A displacement control passes
    other rows: the distance moved stays the same, the direction changes.
    """
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
    # Components are given along the unit of each row. Rows may be oblique, so the point in the span that has these
    # components solves a linear system; its unknowns are the coordinates in the orthonormal basis.
    return torch.linalg.solve(unit_rows(V).double() @ basis.double().T, target.double()).float()


@dataclass(frozen=True, eq=False)
class Edit:
    """One change of the residual stream at one site and one named set of positions.

    Attributes:
        vectors: Rows to add, to ablate, to clamp along, or to patch in.
        value: Coefficients of an addition (one per vector), or the target of a clamp (a point of width d_model, or one
            component per vector).
        along: Set by displacement controls only: orthonormal rows. Each token moves along these rows as far as the
            edit would have moved it along ``vectors``.
        prompt: Index of the only prompt whose rows are changed; None for those of every prompt.
    """

    kind: Kind
    site: Site
    positions: str
    vectors: Float[Tensor, "rank d_model"]
    value: Float[Tensor, "..."] | None = None
    along: Float[Tensor, "rank d_model"] | None = None
    prompt: int | None = None

    def __str__(self) -> str:
        return f"{self.kind} at {self.site}, positions {self.positions!r}, {len(self.vectors)} vectors"


def add(
    site: Site, vector: Float[Tensor, " d_model"], *, coefficient: float | int = 1.0, positions: str = "all"
) -> Edit:
    """Add ``coefficient`` times ``vector`` (raw scale) at ``positions``.

    Raises:
        ValueError: If the vector is zero, or one of the two is not finite.
    """
    norms(rows := _rows(vector))
    if not math.isfinite(coefficient):
        raise ValueError(f"addition at {site}: coefficient {coefficient}")
    return Edit("add", site, positions, rows, torch.tensor([float(coefficient)]))


def ablate(site: Site, vectors: Float[Tensor, "*n d_model"], *, positions: str = "all") -> Edit:
    """Remove the span of ``vectors`` at ``positions``.

    Zero is rarely the value that the component has without the trigger: compare ``clamp``.

    Raises:
        ValueError: If the vectors span nothing or are not finite.
    """
    orthonormal(rows := _rows(vectors))
    return Edit("ablate", site, positions, rows)


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
    """Replace the stream at ``positions`` by ``values``: one row for all prompts, or row i for prompt i."""
    return Edit("patch", site, positions, _rows(values))


def _rows(vectors: Tensor) -> Float[Tensor, "n d_model"]:
    rows = torch.atleast_2d(vectors.detach()).float()
    if rows.ndim != 2 or not bool(torch.isfinite(rows).all()):
        raise ValueError(f"edit vectors of shape {tuple(vectors.shape)}: want finite rows of width d_model")
    return rows


def random_control(edit: Edit, seed: int, *, match: Literal["vectors", "displacement"] = "vectors") -> Edit:
    """Return the same edit with its vectors rotated at random: same norms and mutual angles, random directions.

    Args:
        edit: An addition, ablation or clamp.
        seed: Seed of the random rotation.
        match: ``vectors`` runs the same operation on the random vectors. ``displacement`` moves every token along them
            exactly as far as ``edit`` would have moved it. It is the stronger control for ablations and clamps:
            activations have little component along random vectors, so the same operation there hardly moves them. Its
            sign matters: a token moves one way or the opposite one, so average over several seeds.
    """
    return _rotated(edit, torch.empty(0, edit.vectors.shape[-1]), seed, match)


def orthogonal_control(
    edit: Edit,
    to: Float[Tensor, "*n d_model"] | None = None,
    seed: int = 0,
    *,
    match: Literal["vectors", "displacement"] = "vectors",
) -> Edit:
    """Return ``random_control`` restricted to the orthogonal complement of ``to`` (default: the edit's own vectors)."""
    return _rotated(edit, orthonormal(_rows(edit.vectors if to is None else to)), seed, match)


def _rotated(edit: Edit, avoid: Tensor, seed: int, match: str) -> Edit:
    if edit.kind == "patch" or edit.along is not None:
        raise ValueError(f"{edit}: a control is defined for additions, ablations and clamps that are not controls")
    # The vectors keep their coordinates and get a random orthonormal basis: norms and mutual angles are unchanged.
    basis = orthonormal(edit.vectors)
    random_basis = _random_rows(len(basis), avoid.to(basis), seed)
    if match == "displacement" and edit.kind != "add":
        # Signs and rotations of both bases are the linear algebra library's choice; these products do not depend on it.
        noise = _noise(len(basis), basis.shape[-1], seed).to(basis)
        signs = (random_basis * noise).sum(-1, keepdim=True).sign()
        return replace(edit, along=basis @ _defined_basis(edit, basis).T @ (signs * random_basis))
    return replace(edit, vectors=edit.vectors @ basis.T @ random_basis)


def _random_rows(rank: int, avoid: Tensor, seed: int) -> Float[Tensor, "rank d_model"]:
    width = avoid.shape[-1]
    if rank + len(avoid) > width:
        raise ValueError(f"a random control of rank {rank} away from {len(avoid)} vectors: only {width} dimensions")
    noise = _noise(rank, width, seed)
    basis = avoid.double().cpu()
    return torch.linalg.qr((noise - noise @ basis.T @ basis).T).Q.T.float().to(avoid.device)


def _noise(rank: int, width: int, seed: int) -> Float[Tensor, "rank d_model"]:
    return torch.randn(rank, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _defined_basis(edit: Edit, basis: Tensor) -> Float[Tensor, "rank d_model"]:
    """Return the basis that the edit's vectors define one after the other; a clamp's target has positive coordinates.

    Dependent vectors define none: then it is ``basis``, up to signs.
    """
    if len(basis) == len(edit.vectors):
        q, r = torch.linalg.qr(edit.vectors.double().T)
        basis = (q * r.diagonal().sign()).T.to(basis)
    if edit.value is None or edit.value.shape != basis.shape[-1:]:
        return basis
    return torch.where((basis @ edit.value.to(basis) < 0)[:, None], -basis, basis)


def batch_masks(chats: Sequence[Chat], width: int, device: torch.device | str) -> Masks:
    """Return the masks of one left-padded batch, by position name; each is computed once, when first used."""
    return functools.cache(lambda name: marked(chats, name, width=width).to(device))


class Passes:
    """The masks of generation: the first pass runs the left-padded prompts, every later one a new token per row.

    Call it with a position name. Names of prompt parts mark tokens in the first pass and nothing later; ``answer`` is
    the last prompt token, then every new token. Set ``step`` to the index of the new token that the pass is fed.
    """

    def __init__(self, chats: Sequence[Chat], width: int, device: torch.device) -> None:
        self._prompt = batch_masks(chats, width, device)
        self.step: int | None = None

    def __call__(self, name: str) -> Bool[Tensor, "batch pos"] | bool:
        """Return the mask of the current pass; True or False stands for all of it or nothing."""
        if self.step is not None:
            return name in GENERATED or name == f"response[{self.step}]"
        return False if name.startswith("response") else self._prompt(name)


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
        edits: What to change. Without edits no hook is attached.
        masks: Position name -> mask of the current pass (True or False stands for all or none of its tokens).
        rows: Returns the prompt index of each row of the current pass; needed by a ``patch`` with a row per prompt, and
            by an edit of one prompt.

    Raises:
        ValueError: In the forward pass, if a mask does not have the shape of the batch, or ``rows`` is missing.
    """
    with hooked(lm, functions_of(edits, masks, rows)):
        yield


def functions_of(edits: Sequence[Edit], masks: Masks, rows: Callable[[], Tensor] | None) -> dict[Site, Fn]:
    """Return one function per edited site that runs the edits of that site in order; arguments as in ``editing``."""
    sites = dict.fromkeys(edit.site for edit in edits)
    chains = {site: [(e.positions, _of_prompt(e, rows)) for e in edits if e.site == site] for site in sites}
    return {site: _chain(site, steps, masks) for site, steps in chains.items()}


Operation = Callable[[Tensor], Tensor]
"""One edit as a function of h alone, at every position."""


def _of_prompt(edit: Edit, rows: Callable[[], Tensor] | None) -> Operation:
    """Return ``edit`` as a function of h that leaves the rows of other prompts than its own as they are."""
    change = _operation(edit, rows)
    if edit.prompt is None:
        return change
    if rows is None:
        raise ValueError(f"{edit}: an edit of one prompt needs the prompt of each row (rows=...)")
    return lambda h: torch.where((rows() == edit.prompt).to(h.device)[:, None, None], change(h), h)


def _operation(edit: Edit, rows: Callable[[], Tensor] | None) -> Operation:
    """Return ``edit`` as a function of h; everything that does not depend on h is computed once, here."""
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
    copies = {tensor.device: tensor}

    def get(h: Tensor) -> Tensor:
        if h.device not in copies:
            copies[h.device] = tensor.to(h.device)
        return copies[h.device]

    return get


def _patched(h: Tensor, edit: Edit, rows: Callable[[], Tensor] | None) -> Tensor:
    if len(edit.vectors) == 1:
        return edit.vectors.to(h).expand_as(h)
    if rows is None:
        raise ValueError(f"{edit}: a patch with one row per prompt needs the prompt of each row (rows=...)")
    return edit.vectors[rows().to(edit.vectors.device)].to(h)[:, None].expand_as(h)


def _chain(site: Site, steps: Sequence[tuple[str, Operation]], masks: Masks) -> Fn:
    """Return one function that runs the edits of one site in order, each at its own positions."""

    def run(h: Tensor) -> Tensor | None:
        edited = h
        for name, edit in steps:
            mask = masks(name)
            if mask is True:
                edited = edit(edited)
            elif mask is not False:
                edited = torch.where(fitting(mask, h, f"edit at {site}", name)[..., None], edit(edited), edited)
        return None if edited is h else edited

    return run


def fitting(mask: Bool[Tensor, "batch pos"], h: Tensor, where: str, name: str) -> Bool[Tensor, "batch pos"]:
    """Return ``mask`` on the device of ``h``.

    Raises:
        ValueError: If it does not have the shape of the batch; starts with ``where`` and names the position.
    """
    if mask.shape != h.shape[:2]:
        raise ValueError(
            f"{where}: positions {name!r} mark {tuple(mask.shape)} tokens, the pass has {tuple(h.shape[:2])}"
        )
    return mask.to(h.device)
