"""Counts, means and covariances of recorded vectors by label, without storing the vectors.

    >>> statistics = moments(lm, chats, labels, resid_post(range(lm.n_layers)), ["last_prompt"], covariance=True)
    >>> g = statistics.difference_in_means("misaligned", "aligned", Site("resid_post", 3), "last_prompt")
    >>> (statistics + those_of_other_prompts).pooled_covariance(Site("resid_post", 3), "last_prompt")

Everything is float64. Memory does not depend on the number of prompts: each label, site and position has a mean of
d_model values, and with covariances d_model² more (128 MiB at 4,096), so request those at few sites.

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
from interp.recording import stream
from interp.runs.checks import check_known
from interp.runs.progress import Progress
from interp.sites import Site, index_of


@dataclass(frozen=True, eq=False)
class Group:
    """The vectors of one label: count, mean, and sum of outer products about the mean (None without covariances)."""

    count: int
    mean: Float64[Tensor, "site position d_model"]
    scatter: Float64[Tensor, "site position d_model d_model"] | None

    def __add__(self, other: "Group") -> "Group":
        """Return the group of both sets of vectors together."""
        total, shift = self.count + other.count, other.mean - self.mean
        scatter = None
        if self.scatter is not None and other.scatter is not None:
            between = (self.count * other.count / total) * shift[..., :, None] * shift[..., None, :]
            scatter = self.scatter + other.scatter + between
        return Group(total, self.mean + shift * (other.count / total), scatter)


@dataclass(frozen=True, eq=False)
class Moments:
    """Statistics of one vector per prompt, site and position, by label. ``a + b`` equals one pass over both."""

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
        return self._group(label).mean[index_of(site, position, self.sites, self.positions)]

    def covariance(self, label: str, site: Site, position: str) -> Float64[Tensor, "d_model d_model"]:
        """Return the unbiased covariance of a label's vectors (divided by n - 1), as ``torch.cov``.

        Raises:
            ValueError: If covariances were not requested, or the label has fewer than two vectors.
        """
        return self._divided([label], 1, site, position)

    def pooled_covariance(self, site: Site, position: str) -> Float64[Tensor, "d_model d_model"]:
        """Return the covariance about each label's own mean, over all labels (divided by n - number of labels).

        Raises:
            ValueError: If covariances were not requested, or no label has two vectors.
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
        """Return the statistics of both sets of prompts together.

        Raises:
            ValueError: If sites or positions differ, or only one has covariances.
        """
        for name in ("sites", "positions", "covariance_kept"):
            left, right = getattr(self, name), getattr(other, name)
            if left != right:
                raise ValueError(f"moments of other {name}: {_text(left)} and {_text(right)}")
        groups = dict(self.groups)
        for label, group in other.groups.items():
            groups[label] = groups[label] + group if label in groups else group
        return replace(self, groups=dict(sorted(groups.items())))

    def _group(self, label: str) -> Group:
        check_known(label, self.groups, f"label {label!r}: the labels are")
        return self.groups[label]

    def _divided(self, labels: Sequence[str], means: int, site: Site, position: str) -> Tensor:
        groups = [self._group(label) for label in labels]
        at = index_of(site, position, self.sites, self.positions)
        scatters = [group.scatter[at] for group in groups if group.scatter is not None]
        degrees = sum(group.count for group in groups) - means
        if not scatters or degrees < 1:
            why = f"{degrees + means} vectors about {means} means" if scatters else "not recorded (covariance=True)"
            raise ValueError(f"covariance of {', '.join(labels)} at {site}, {position}: {why}")
        return sum(scatters[1:], start=scatters[0]) / degrees


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


class Accumulator:
    """Takes vectors in batches of any size and order; ``finish`` returns the statistics of all of them."""

    def __init__(self, sites: Sequence[Site], positions: Sequence[str], *, covariance: bool = False) -> None:
        self._empty = Moments(tuple(sites), tuple(positions), covariance, {})
        self._groups: dict[str, Group] = {}

    def add(self, values: Float[Tensor, "site position batch d_model"], labels: Sequence[str]) -> None:
        """Add one vector per label, site and position.

        Raises:
            ValueError: If there is not one label per vector, or a value is not finite; nothing is added then.
        """
        if values.shape[2] != len(labels):
            raise ValueError(f"{values.shape[2]} vectors with {len(labels)} labels")
        self._check_finite(values)
        for label in dict.fromkeys(labels):
            rows = [row for row, other in enumerate(labels) if other == label]
            self._update(label, values[:, :, rows].double().cpu())

    def finish(self) -> Moments:
        """Return the statistics of all vectors added, and start again from none."""
        groups, self._groups = dict(sorted(self._groups.items())), {}
        return replace(self._empty, groups=groups)

    def _update(self, label: str, values: Float64[Tensor, "site position n d_model"]) -> None:
        """Update a label's group in place: a scatter matrix is too large to allocate again for every batch."""
        group, n, mean = self._groups.get(label) or self._new(values), values.shape[2], values.mean(2)
        shift, total = mean - group.mean, group.count + n
        if group.scatter is not None:
            # The scatter of the union is the two scatters plus n1 n2 / (n1 + n2) times shift shiftᵀ. That last term is
            # the outer product of one more row, so a single matrix product adds everything.
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
    """Return the statistics of the vectors that ``record`` would return, from the same passes, storing none.

    Args:
        lm: The model, with the active adapter.
        chats: Prompts.
        labels: Label of each prompt. Statistics are computed per label.
        sites: As in ``record``.
        positions: As in ``record``.
        covariance: Compute covariances too.
        edits: Edits under which to record.
        batch_tokens: Most tokens in one forward pass; None chooses by device. Changes the result by rounding only.
        progress: Called after each pass with the number of prompts it finished.

    Raises:
        ValueError: As ``record``, or if there is not one label per prompt, or a vector is not finite.
    """
    if len(labels) != len(chats):
        raise ValueError(f"{len(chats)} prompts with {len(labels)} labels")
    accumulator = Accumulator(sites, positions, covariance=covariance)
    passes = stream(lm, chats, sites, positions, edits=edits, batch_tokens=batch_tokens, progress=progress)
    for rows, values in passes:
        accumulator.add(values, [labels[row] for row in rows])
    return accumulator.finish()
