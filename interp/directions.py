"""Directions of the residual stream: find them, compare them, save them, and the controls they need.

Statistics are computed in float64 and returned as float32 on the device of their input. The controls of a direction (a
random one, one orthogonal to it) are in this module too.

    >>> g = difference_in_means(misaligned, aligned)          # raw scale
    >>> null = random_like(g, seed=0)                         # same norm, random direction
    >>> scores = project(activations, g)                      # component along the unit direction
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Float, Float64
from pydantic import AfterValidator
from safetensors.torch import save
from torch import Tensor

from interp.runs.files import atomic_write_bytes
from interp.runs.reading import json_value, refuse
from interp.runs.tensors import read_tensors
from interp.sites import Site


@dataclass(frozen=True, eq=False)
class Direction:
    """One direction with its provenance.

    ``vector`` has the raw scale of its method; ``positive`` and ``negative`` describe the two sides that were
    contrasted.
    """

    vector: Float[Tensor, " d_model"]
    site: Site
    method: str
    positive: str
    negative: str
    n_positive: int
    n_negative: int

    @property
    def norm(self) -> float:
        """Return the Euclidean norm of ``vector``."""
        return float(self.vector.double().norm())

    @property
    def unit(self) -> Float[Tensor, " d_model"]:
        """Return ``vector`` at norm 1."""
        return unit(self.vector)


def unit(vector: Float[Tensor, " d_model"]) -> Float[Tensor, " d_model"]:
    """Scale ``vector`` to norm 1.

    Raises:
        ValueError: If the norm of ``vector`` is zero or not finite.
    """
    return (vector.double() / norms(vector)).float()


def norms(vectors: Float[Tensor, "*batch d_model"]) -> Float64[Tensor, "*batch"]:
    """Return the Euclidean norm of each vector, in float64.

    Raises:
        ValueError: If one of them is zero or not finite, so that the vector has no direction.
    """
    lengths = vectors.double().norm(dim=-1)
    pointless = lengths[~(lengths.isfinite() & (lengths > 0))]
    if len(pointless):
        raise ValueError(f"direction of shape {tuple(vectors.shape)}: its norm is {float(pointless[0])}")
    return lengths


def difference_in_means(
    positive: Float[Tensor, "n d_model"], negative: Float[Tensor, "m d_model"]
) -> Float[Tensor, " d_model"]:
    """Return mean(positive) - mean(negative), raw scale.

    Raises:
        ValueError: If either side has no rows, the widths differ, or a row is not finite.

    Not evidence for: a cause of behaviour. With shuffled labels the same rows give a norm ~ sqrt(1/n + 1/m).

    Source: Soligo et al. 2025 (arXiv:2506.11618); Arditi et al. 2024 (arXiv:2406.11717).
    """
    if len(positive) == 0 or len(negative) == 0 or positive.shape[-1] != negative.shape[-1]:
        raise ValueError(f"difference of means of shapes {tuple(positive.shape)} and {tuple(negative.shape)}")
    difference = (positive.double().mean(0) - negative.double().mean(0)).float()
    if not bool(difference.isfinite().all()):
        raise ValueError("difference of means: a row is not finite")
    return difference


def principal(activations: Float[Tensor, "n d_model"], *, rank: int = 1) -> Float[Tensor, "rank d_model"]:
    """Return the ``rank`` leading principal directions of the centred rows, orthonormal, largest variance first.

    The sign of each is fixed so that its component of largest magnitude is positive.

    Raises:
        ValueError: If ``rank`` is not in 1..min(n - 1, d_model), the rows vary in fewer, or one is not finite.
    """
    n, d_model = activations.shape
    if not 1 <= rank <= min(n - 1, d_model):
        raise ValueError(f"rank {rank}: {n} rows of width {d_model} have 1..{min(n - 1, d_model)} directions")
    centred = activations.double() - activations.double().mean(0)
    if not bool(centred.isfinite().all()):
        raise ValueError("principal directions: a row is not finite")
    _, spread, rows = torch.linalg.svd(centred, full_matrices=False)
    if not float(spread[rank - 1]) > 1e-12 * float(spread[0]):
        raise ValueError(f"rank {rank}: the {n} rows vary in fewer directions")
    rows = rows[:rank]
    signs = rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
    return (rows * signs).float()


def orthonormal(vectors: Float[Tensor, "n d_model"]) -> Float[Tensor, "rank d_model"]:
    """Return an orthonormal basis (float32) of the span of the rows; linearly dependent rows add nothing.

    Raises:
        ValueError: If the rows are not finite or span nothing.
    """
    if vectors.ndim != 2 or not bool(torch.isfinite(vectors).all()) or not bool(vectors.any()):
        raise ValueError(f"vectors of shape {tuple(vectors.shape)}: want finite rows (n, d_model) that span something")
    _, scale, rows = torch.linalg.svd(unit_rows(vectors).double(), full_matrices=False)
    return rows[scale > 1e-6 * scale[0]].float()


def unit_rows(vectors: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
    """Scale each row to norm 1; a zero row stays zero."""
    rows = vectors.double()
    return (rows / rows.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)).float()


def random_like(vector: Float[Tensor, " d_model"], seed: int) -> Float[Tensor, " d_model"]:
    """Return a uniformly random direction with the norm of ``vector``: the control for any use of it.

    Raises:
        ValueError: If the norm of ``vector`` is zero or not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(vector.shape, generator=generator, dtype=torch.float64).to(vector.device)
    return (noise / noise.norm() * norms(vector)).float()


def orthogonal_like(
    vector: Float[Tensor, " d_model"], to: Float[Tensor, "*n d_model"], seed: int
) -> Float[Tensor, " d_model"]:
    """Return a random direction with the norm of ``vector``, orthogonal to every row of ``to``.

    Raises:
        ValueError: If ``to`` spans the whole space.
    """
    basis = orthonormal(to.reshape(-1, to.shape[-1])).double().to(vector.device)
    if len(basis) == vector.shape[-1]:
        raise ValueError(f"{len(basis)} vectors span all {vector.shape[-1]} dimensions: nothing is orthogonal to them")
    noise = random_like(vector, seed).double()
    orthogonal = noise - (noise @ basis.T) @ basis
    return (orthogonal / orthogonal.norm() * vector.double().norm()).float()


def cosine(a: Float[Tensor, "*#batch d_model"], b: Float[Tensor, "*#batch d_model"]) -> Float[Tensor, "..."]:
    """Return the cosine in [-1, 1] along the last axis, with broadcasting.

    Raises:
        ValueError: If a vector has zero or non-finite norm.

    Not evidence for: shared meaning, if small. In width d, independent directions have |cosine| ~ 1/sqrt(d).
    """
    for vectors in (a, b):
        norms(vectors)
    return torch.cosine_similarity(a.double(), b.double(), dim=-1, eps=0.0).float()


def subspace_overlap(U: Float[Tensor, "n d_model"], V: Float[Tensor, "m d_model"]) -> float:
    """Return the mean squared cosine of the principal angles between the spans of two sets of rows, in [0, 1].

    1 if the smaller span lies in the larger, 0 if they are orthogonal. For random subspaces of ranks r and s in width d
    the expectation is max(r, s) / d, the same as for a random direction and the larger of the two.

    Raises:
        ValueError: If either side is not finite or spans nothing.

    Not evidence for: the same function of both; large subspaces overlap by chance.

    Source: Björck and Golub 1973, principal angles.
    """
    a, b = (orthonormal(rows).double() for rows in (U, V))
    return float((a @ b.T).square().sum() / min(len(a), len(b)))


def project(h: Float[Tensor, "*batch d_model"], direction: Float[Tensor, " d_model"]) -> Float[Tensor, "*batch"]:
    """Return the component of ``h`` along the unit of ``direction``, in the units of ``h``."""
    return h.float() @ unit(direction).to(h.device)


_ABOUT = "directions"


@dataclass(frozen=True, kw_only=True)
class _Provenance:
    """What a file of directions says of each beside its vector."""

    site: Annotated[str, AfterValidator(Site.parse)]
    method: str
    positive: str
    negative: str
    n_positive: int
    n_negative: int


def save_directions(path: Path | str, directions: Mapping[str, Direction]) -> None:
    """Write named directions to one safetensors file: vectors as float32, provenance as JSON in its metadata.

    The metadata have one entry, because the library writes several in another order each time.
    """
    tensors = {name: d.vector.detach().float().cpu().contiguous() for name, d in directions.items()}
    about = {
        name: {f.name: getattr(d, f.name) for f in fields(_Provenance)} | {"site": str(d.site)}
        for name, d in directions.items()
    }
    atomic_write_bytes(Path(path), save(tensors, {_ABOUT: json.dumps(about, sort_keys=True)}))


def load_directions(path: Path | str) -> dict[str, Direction]:
    """Read what ``save_directions`` wrote, sorted by name.

    Raises:
        OSError: If there is no such file.
        ValueError: If what it says of its directions is wrong, or one lacks its vector; names the file.
    """
    metadata, tensors = read_tensors(path, "file of directions")
    earlier = ",".join(f"{json.dumps(name)}:{text}" for name, text in metadata.items())  # one entry per direction
    about, faults = json_value(metadata.get(_ABOUT, f"{{{earlier}}}"), dict[str, _Provenance])
    faults += [f"{name}: no vector of that name" for name in about or () if getattr(tensors.get(name), "ndim", 0) != 1]
    if faults:
        refuse(path, ["no file of directions", *faults])
    return {name: Direction(tensors[name], **vars(a)) for name, a in sorted(about.items())}
