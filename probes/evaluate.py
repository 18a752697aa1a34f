"""How well a probe does on rows it has not seen, with the controls that say what the number is worth."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.linear import Fit, Probe, fit_logistic
from probes.metrics import (
    Calibration,
    LayerScores,
    accuracy,
    auroc,
    calibration,
    grouped_auroc,
    grouped_mean,
    macro_auroc,
    spread,
)
from probes.splits import Folds, by_question

__all__ = [
    "Calibration",
    "LabelledSet",
    "Labels",
    "LayerScores",
    "accuracy",
    "auroc",
    "bag_of_tokens",
    "calibration",
    "cross_validated_auroc",
    "dealt_phrasings",
    "grouped_auroc",
    "grouped_mean",
    "held_out_scores",
    "macro_auroc",
    "permuted_by_group",
    "random_direction",
    "shuffled_labels",
    "side_scores",
    "sides_of",
    "token_counts",
    "transfer_matrix",
    "transfer_scores",
]

Labels = Bool[Tensor, " n"] | Int[Tensor, " n"]
"""Two classes, or categories by number."""


def held_out_scores(probe: Probe, X: Float[Tensor, "layer n d"], folds: Folds) -> Float[Tensor, "layer n"]:
    """Return each row's score by the fold that tests it; NaN for a row that no fold tests."""
    test = folds.test.to(X.device)
    scores = torch.where(test, probe.scores(X), 0).sum(1)
    return torch.where(test.any(0), scores, torch.nan)


def sides_of(y: Labels) -> Bool[Tensor, "side n"]:
    """Return the binary labels of each probe: ``y`` itself, or of categories one against the rest, in their order."""
    return y[None] if y.dtype == torch.bool else y == y.unique()[:, None]


def side_scores(
    X: Float[Tensor, "layer n d"], sides: Bool[Tensor, "side n"], folds: Folds, fit: Fit
) -> Float[Tensor, "layer side n"]:
    """Fit a probe for every side and fold at once; return held-out scores, NaN for a row that no fold tests."""
    k, test = len(sides), folds.test.to(X.device)
    repeated = Folds(folds.train.repeat(k, 1), folds.test.repeat(k, 1), folds.groups)
    probe = fit(X, sides.to(X.device).repeat_interleave(len(folds), 0), repeated)
    held_out = [torch.where(test, scores.unflatten(0, (k, -1)), 0).sum(1) for scores in probe.scores(X)]
    return torch.where(test.any(0), torch.stack(held_out), torch.nan)


def cross_validated_auroc(
    X: Float[Tensor, "layer n d"],
    y: Labels,
    groups: Sequence[Hashable],
    *,
    fit: Fit = fit_logistic,
    folds: Folds | None = None,
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> LayerScores:
    """Return the AUROC of every layer on held-out groups, by default in five folds over ``groups``.

    Whole numbers as labels are categories: the AUROC is then the mean of each against the rest, and chance one half.

    Not evidence for: a representation of the label, unless ``shuffled_labels`` is at one half, and ``bag_of_tokens``
    and ``random_direction`` are lower.
    """
    folds, sides = folds or by_question(groups, seed=seed), sides_of(y)
    return macro_auroc(side_scores(X, sides, folds, fit), sides, folds, n_boot=n_boot, level=level, seed=seed)


def shuffled_labels(
    X: Float[Tensor, "layer n d"],
    y: Labels,
    groups: Sequence[Hashable],
    *,
    fit: Fit = fit_logistic,
    folds: Folds | None = None,
    n_draws: int = 20,
    level: float = 0.95,
    seed: int = 0,
) -> LayerScores:
    """Return the AUROC when labels are permuted by group: its mean and spread over permutations.

    The same fit and folds as the probe; each permutation is tested on its own labels.
    """
    folds = folds or by_question(groups, seed=seed)
    sides = torch.stack([sides_of(labels) for labels in permuted_by_group(y, folds, n_draws, seed=seed)])
    scores = side_scores(X, sides.flatten(0, 1), folds, fit).unflatten(1, sides.shape[:2])
    draws = [macro_auroc(scores[:, i], own, folds, n_boot=1).value for i, own in enumerate(sides)]
    return _drawn(torch.stack(draws), folds, "permutation", level)


def random_direction(
    X: Float[Tensor, "layer n d"],
    y: Labels,
    groups: Sequence[Hashable],
    *,
    folds: Folds | None = None,
    n_draws: int = 20,
    level: float = 0.95,
    seed: int = 0,
) -> LayerScores:
    """Return the AUROC of projections on random directions, with the sign set by the training rows of each fold."""
    folds, sides = folds or by_question(groups, seed=seed), sides_of(y)
    generator = torch.Generator().manual_seed(seed)
    draws = []
    for _ in range(n_draws):
        direction = torch.randn(X.shape[0], X.shape[2], 1, generator=generator).to(X)
        projection = (X @ direction)[..., 0]
        projection = projection - projection.mean(1, keepdim=True)
        signed = torch.stack([_signed(projection, side.to(X.device), folds) for side in sides], 1)
        draws.append(macro_auroc(signed, sides, folds, n_boot=1).value)
    return _drawn(torch.stack(draws), folds, "random_directions", level)


def _signed(projection: Float[Tensor, "layer n"], y: Bool[Tensor, " n"], folds: Folds) -> Float[Tensor, "layer n"]:
    train = folds.train.to(projection)
    positive, negative = train * y, train * ~y
    sign = (projection @ (positive / positive.sum(1, True) - negative / negative.sum(1, True)).T).sign()
    return (projection[:, None] * sign[..., None] * folds.test.to(projection)).sum(1)


def bag_of_tokens(
    token_ids: Sequence[Sequence[int]],
    y: Labels,
    groups: Sequence[Hashable],
    *,
    fit: Fit = fit_logistic,
    folds: Folds | None = None,
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> LayerScores:
    """Return the AUROC of a probe on token counts, as one layer: what the words alone give away."""
    counts = token_counts(token_ids)[None]
    return cross_validated_auroc(counts, y, groups, fit=fit, folds=folds, n_boot=n_boot, level=level, seed=seed)


def token_counts(token_ids: Sequence[Sequence[int]]) -> Float[Tensor, "n vocab"]:
    """Return how often each token that occurs at all stands in each row; columns in the order of token ids."""
    columns = {token: i for i, token in enumerate(sorted({token for row in token_ids for token in row}))}
    counts = torch.zeros(len(token_ids), len(columns))
    for row, tokens in zip(counts, token_ids, strict=True):
        row += torch.tensor([columns[token] for token in tokens], dtype=torch.long).bincount(minlength=len(columns))
    return counts


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """Activations of one setting (a trigger, an organism, a seed) with labels and groups, for transfer.

    Attributes:
        phrasings: The text behind each row, where that is to be held out too.
    """

    X: Float[Tensor, "layer n d"]
    y: Bool[Tensor, " n"]
    groups: Sequence[Hashable]
    phrasings: Sequence[Hashable] | None = None


def transfer_scores(
    sets: Mapping[str, LabelledSet],
    *,
    fit: Fit = fit_logistic,
    n_folds: int = 5,
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[tuple[str, str], LayerScores]:
    """Return by (source, target) the AUROC on the target set of probes fitted on the source set.

    Groups are held out across sets: a question that tests a target trains no source, and where the sets have phrasings,
    no phrasing does either. The AUROC of a set on itself is therefore its cross-validated one.

    Raises:
        ValueError: If some sets have phrasings and others none, or there are too few groups to deal.
    """
    folds = _shared_folds(sets, n_folds, seed)
    found = {}
    for source, own in sets.items():
        probe = fit(own.X, own.y, folds[source])
        for target, other in sets.items():
            scores = held_out_scores(probe, other.X, folds[target])
            found[source, target] = grouped_auroc(scores, other.y, folds[target], n_boot=n_boot, level=level, seed=seed)
    return found


def transfer_matrix(
    sets: Mapping[str, LabelledSet], *, fit: Fit = fit_logistic, n_folds: int = 5, seed: int = 0
) -> Float[Tensor, "layer source target"]:
    """Return the values of ``transfer_scores`` in the order of ``sets``."""
    found = transfer_scores(sets, fit=fit, n_folds=n_folds, n_boot=1, seed=seed)
    return torch.stack([torch.stack([found[a, b].value for b in sets], -1) for a in sets], 1)


def _shared_folds(sets: Mapping[str, LabelledSet], n_folds: int, seed: int) -> dict[str, Folds]:
    """Return folds of the same questions, and phrasings, for every set; fold i of one goes with fold i of another."""
    if len({labelled.phrasings is None for labelled in sets.values()}) > 1:
        raise ValueError("transfer: either every set has phrasings or none has")
    names = list(dict.fromkeys(group for labelled in sets.values() for group in labelled.groups))
    parts = by_question(names, n_folds, seed=seed).test
    number = {name: i for i, name in enumerate(names)}
    part_of = dealt_phrasings(list(sets.values()), n_folds, seed=seed)
    folds = {}
    for name, labelled in sets.items():
        columns = torch.tensor([number[group] for group in labelled.groups])
        test, kept, groups = parts[:, columns], ~parts[:, columns], columns[None]
        if labelled.phrasings is not None:
            texts = torch.tensor([part_of[text] for text in labelled.phrasings])
            own = texts == torch.arange(max(part_of.values()) + 1)[:, None]
            test, kept = ((a[:, None] & b).flatten(0, 1) for a, b in ((test, own), (kept, ~own)))
        folds[name] = Folds(kept, test, groups)
    return folds


def dealt_phrasings(sets: Sequence[LabelledSet], n_parts: int, *, seed: int = 0) -> dict[Hashable, int]:
    """Return the part of each phrasing: the same in every set, and each set's two classes spread over all parts.

    There are ``n_parts``, or as many as the class with the fewest phrasings has.

    Raises:
        ValueError: If a class of a set has only one phrasing.
    """
    cells = [
        list(dict.fromkeys(text for text, label in zip(own.phrasings, own.y.tolist(), strict=True) if label is side))
        for own in sets
        if own.phrasings is not None
        for side in (True, False)
    ]
    if cells and min(map(len, cells)) < 2:
        raise ValueError("transfer: a class of a set has one phrasing; holding it out leaves none to learn from")
    n_parts = min([n_parts, *map(len, cells)])
    generator, part_of = torch.Generator().manual_seed(seed), {}
    for cell in cells:
        filled = [sum(part_of.get(text) == part for text in cell) for part in range(n_parts)]
        for i in torch.randperm(len(cell), generator=generator).tolist():
            if cell[i] not in part_of:
                part_of[cell[i]] = filled.index(min(filled))
                filled[part_of[cell[i]]] += 1
    return part_of


def permuted_by_group(y: Labels, folds: Folds, n_draws: int, *, seed: int = 0) -> Tensor:
    """Return permutations of the labels that keep what belongs to a group together.

    Groups are put in random order with their labels permuted inside, and dealt onto the groups in their own order: a
    label that is the same within groups moves between groups, one that varies within groups also moves inside them. The
    number of rows of each label is kept.
    """
    generator = torch.Generator().manual_seed(seed)
    groups = folds.groups[0]
    destination = groups.argsort(stable=True)
    n_groups, draws = int(groups.max()) + 1, []
    for _ in range(n_draws):
        inside = torch.randperm(len(y), generator=generator)
        order = torch.randperm(n_groups, generator=generator)
        source = inside[order[groups[inside]].argsort(stable=True)]
        draws.append(torch.empty(len(y), dtype=y.dtype).scatter(0, destination, y.cpu()[source]))
    return torch.stack(draws)


def _drawn(draws: Float[Tensor, "draw layer"], folds: Folds, method: str, level: float) -> LayerScores:
    low, high = spread(draws.T, level)
    return LayerScores(draws.mean(0), low, high, method, folds.test.shape[1], len(folds.groups[0].unique()))
