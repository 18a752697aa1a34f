"""Counts, means and covariances of recorded vectors by label, without keeping a vector.

    >>> seen = moments(lm, chats, labels, resid_post(range(lm.n_layers)), ["last_prompt"], covariance=True)
    >>> g = seen.difference_in_means("misaligned", "aligned", Site("resid_post", 3), "last_prompt")
    >>> (seen + those_of_other_prompts).pooled_covariance(Site("resid_post", 3), "last_prompt")

Everything is float64. The memory is that of the result, whatever the number of prompts: a mean of d_model values a
label, site and position, and with covariances d_model² more (128 MiB at 4,096), so ask for those at few sites.

Source: Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from interp.chat import Chat
from interp.directions import Direction
from interp.edits import Edit
from interp.models import LanguageModel
from interp.recording import Progress, stream
from interp.sites import Site


@dataclass(frozen=True, eq=False)
class Group:
    """The vectors of one label: how many, their mean, and the sum of outer products about it (None if not kept)."""

    count: int
    mean: Float64[Tensor, "site position d_model"]
    scatter: Float64[Tensor, "site position d_model d_model"] | None

    def __add__(self, other: "Group") -> "Group":
        """Return the group of the vectors of both."""
        total, shift = self.count + other.count, other.mean - self.mean
        scatter = None
        if self.scatter is not None and other.scatter is not None:
            between = (self.count * other.count / total) * shift[..., :, None] * shift[..., None, :]
            scatter = self.scatter + other.scatter + between
        return Group(total, self.mean + shift * (other.count / total), scatter)


@dataclass(frozen=True, eq=False)
class Moments:
    """Statistics of one vector a prompt at each site and position, by label. ``a + b`` is one pass over both."""

    sites: tuple[Site, ...]
    positions: tuple[str, ...]
    covariance_kept: bool
    groups: Mapping[str, Group]

    @property
    def counts(self) -> dict[str, int]:
        """Number of prompts of each label."""
        return {label: group.count for label, group in self.groups.items()}

    def mean(self, label: str, site: Site, position: str) -> Float64[Tensor, " d_model"]:
        """Return the mean vector of a label.

        Raises:
            ValueError: If there is no such label, site or position.
        """
        return self._group(label).mean[self._at(site, position)]

    def covariance(self, label: str, site: Site, position: str) -> Float64[Tensor, "d_model d_model"]:
        """Return the unbiased covariance of a label's vectors (divided by n - 1), as ``torch.cov``.

        Raises:
            ValueError: If covariances were not kept, or the label has fewer than two vectors.
        """
        return self._divided([label], 1, site, position)

    def pooled_covariance(self, site: Site, position: str) -> Float64[Tensor, "d_model d_model"]:
        """Return the covariance about each label's own mean, over all labels (divided by n - number of labels).

        Raises:
            ValueError: If covariances were not kept, or no label has two vectors.
        """
        return self._divided(list(self.groups), len(self.groups), site, position)

    def difference_in_means(self, positive: str, negative: str, site: Site, position: str) -> Direction:
        """Return mean(positive) - mean(negative), raw scale.

        Raises:
            ValueError: If there is no such label, site or position.

        Not evidence for: a cause of behaviour; see ``interp.directions.difference_in_means``.
        """
        vector = (self.mean(positive, site, position) - self.mean(negative, site, position)).float()
        counts = self._group(positive).count, self._group(negative).count
        return Direction(vector, site, f"difference-in-means at {position}", positive, negative, *counts)

    def __add__(self, other: "Moments") -> "Moments":
        """Return the statistics of the prompts of both.

        Raises:
            ValueError: If they are of other sites or positions, or one lacks covariances.
        """
        for name in ("sites", "positions", "covariance_kept"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(f"moments of other {name}: {_words(mine)} and {_words(theirs)}")
        groups = dict(self.groups)
        for label, group in other.groups.items():
            groups[label] = groups[label] + group if label in groups else group
        return replace(self, groups=dict(sorted(groups.items())))

    def _group(self, label: str) -> Group:
        if label not in self.groups:
            raise ValueError(f"label {label!r}: the labels are {', '.join(self.groups)}")
        return self.groups[label]

    def _at(self, site: Site, position: str) -> tuple[int, int]:
        for kind, wanted, held in (("site", site, self.sites), ("position", position, self.positions)):
            if wanted not in held:
                raise ValueError(f"{kind} {wanted}: kept were {', '.join(map(str, held))}")
        return self.sites.index(site), self.positions.index(position)

    def _divided(self, labels: Sequence[str], means: int, site: Site, position: str) -> Tensor:
        groups, at = [self._group(label) for label in labels], self._at(site, position)
        scatters = [group.scatter[at] for group in groups if group.scatter is not None]
        degrees = sum(group.count for group in groups) - means
        if not scatters or degrees < 1:
            why = f"{degrees + means} vectors about {means} means" if scatters else "none was kept (covariance=True)"
            raise ValueError(f"covariance of {', '.join(labels)} at {site}, {position}: {why}")
        return sum(scatters[1:], start=scatters[0]) / degrees


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


class Accumulator:
    """Takes vectors in any portions and order; ``finish`` says what all of them amount to."""

    def __init__(self, sites: Sequence[Site], positions: Sequence[str], *, covariance: bool = False) -> None:
        self._empty = Moments(tuple(sites), tuple(positions), covariance, {})
        self._groups: dict[str, Group] = {}

    def add(self, values: Float[Tensor, "site position batch d_model"], labels: Sequence[str]) -> None:
        """Take one vector a label, site and position.

        Raises:
            ValueError: If there is not one label a vector, or a value is not finite; nothing is taken then.
        """
        if values.shape[2] != len(labels):
            raise ValueError(f"{values.shape[2]} vectors with {len(labels)} labels")
        self._check_finite(values)
        for label in dict.fromkeys(labels):
            rows = [row for row, other in enumerate(labels) if other == label]
            self._absorb(label, values[:, :, rows].double().cpu())

    def finish(self) -> Moments:
        """Hand over the statistics of all vectors taken, and begin anew."""
        groups, self._groups = dict(sorted(self._groups.items())), {}
        return replace(self._empty, groups=groups)

    def _absorb(self, label: str, values: Float64[Tensor, "site position n d_model"]) -> None:
        """Move a label's group in place, for a scatter is too large to make anew for every portion."""
        group, n, mean = self._groups.get(label) or self._new(values), values.shape[2], values.mean(2)
        shift, total = mean - group.mean, group.count + n
        if group.scatter is not None:
            between = shift[:, :, None] * math.sqrt(group.count * n / total)
            rows = torch.cat([values - mean[:, :, None], between], 2).flatten(0, 1)
            group.scatter.view(-1, *group.scatter.shape[2:]).baddbmm_(rows.mT, rows)
        group.mean.add_(shift, alpha=n / total)
        self._groups[label] = replace(group, count=total)

    def _new(self, values: Tensor) -> Group:
        sites, positions, _, width = values.shape
        scatter = values.new_zeros(sites, positions, width, width) if self._empty.covariance_kept else None
        return Group(0, values.new_zeros(sites, positions, width), scatter)

    def _check_finite(self, values: Tensor) -> None:
        bad = (~torch.isfinite(values).all(-1)).nonzero()
        if len(bad):
            site, position, _ = bad[0].tolist()
            raise ValueError(
                f"{self._empty.sites[site]} at {self._empty.positions[position]}: a vector is not finite "
                "(float16 ends at 65504, float32 and bfloat16 do not)"
            )


def moments(
    lm: LanguageModel,
    chats: Sequence[Chat],
    labels: Sequence[str],
    sites: Sequence[Site],
    positions: Sequence[str],
    *,
    covariance: bool = False,
    edits: Sequence[Edit] = (),
    batch_tokens: int | None = None,
    progress: Progress | None = None,
) -> Moments:
    """Return the statistics of the vectors that ``record`` would return, from the same passes, keeping none.

    Args:
        lm: The model, with the adapter that is active now.
        chats: Prompts, one label each.
        labels: What the statistics are by; all equal for none.
        sites: As in ``record``.
        positions: As in ``record``.
        covariance: Keep covariances too.
        edits: Edits under which to record.
        batch_tokens: Most tokens in one forward pass; None suits the device. Changes the result by rounding only.
        progress: Told how many prompts each pass finished.

    Raises:
        ValueError: As ``record``, or if there is not one label a prompt, or a vector is not finite.
    """
    if len(labels) != len(chats):
        raise ValueError(f"{len(chats)} prompts with {len(labels)} labels")
    accumulator = Accumulator(sites, positions, covariance=covariance)
    passes = stream(lm, chats, sites, positions, edits=edits, batch_tokens=batch_tokens, progress=progress)
    for rows, values in passes:
        accumulator.add(values, [labels[row] for row in rows])
    return accumulator.finish()
