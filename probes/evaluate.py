"""How well a probe does on rows it has not seen, with the controls that show what the number is worth.

A probe's AUROC means little alone. It counts once ``shuffled_labels`` is at one half, and ``bag_of_tokens`` and
``random_direction``, on the same rows and folds, are clearly lower.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.logistic import fit_logistic
from probes.metrics import N_BOOT, LayerScores, macro_auroc, spread
from probes.probe import Activations, Fit, Probe
from probes.splits import Folds

Labels = Bool[Tensor, " n"] | Int[Tensor, " n"]
"""Two classes as booleans, or categories as whole numbers."""


def held_out_scores(probe: Probe, X: Activations, folds: Folds) -> Float[Tensor, "layer n"]:
    """Return each row's score by the fold that tests it; NaN for a row that no fold tests."""
    return held_out_of(probe.scores(X), folds)


def held_out_of(scores: Float[Tensor, "*batch fold n"], folds: Folds) -> Float[Tensor, "*batch n"]:
    """Return each row's score by the fold that tests it, from the scores of all folds; NaN where none does."""
    # Each row is tested by one fold at most, so the sum over folds picks that fold's score.
    test = folds.test.to(scores.device)
    return torch.where(test.any(0), torch.where(test, scores, 0).sum(-2), torch.nan)


def one_vs_rest(y: Labels) -> Bool[Tensor, "class n"]:
    """Return one row of binary labels per probe: ``y`` itself, or each category against the rest in ascending order."""
    return y[None] if y.dtype == torch.bool else y == y.unique()[:, None]


def cross_validated_scores(
    X: Activations, labels: Bool[Tensor, "class n"], folds: Folds, fit: Fit
) -> Float[Tensor, "layer class n"]:
    """Fit one probe per class and fold; return held-out scores, NaN for a row that no fold tests."""
    # Classes become further folds: one fit then shares its matrix products over all of them.
    k = len(labels)
    repeated = Folds(folds.train.repeat(k, 1), folds.test.repeat(k, 1), folds.groups)
    probe = fit(X, labels.to(X.device).repeat_interleave(len(folds), 0), repeated)
    return torch.stack([held_out_of(scores.unflatten(0, (k, -1)), folds) for scores in probe.scores(X)])


def cross_validated_auroc(
    X: Activations, y: Labels, folds: Folds, *, fit: Fit = fit_logistic, n_boot: int = N_BOOT, seed: int = 0
) -> LayerScores:
    """Return the AUROC of every layer on held-out groups, with a cluster-bootstrap interval.

    Categories give the mean AUROC of each category against the rest; chance is one half.

    Not evidence for: a representation of the label, unless ``shuffled_labels`` is at one half, and ``bag_of_tokens``
    and ``random_direction`` are lower.
    """
    labels = one_vs_rest(y)
    return macro_auroc(cross_validated_scores(X, labels, folds, fit), labels, folds, n_boot=n_boot, seed=seed)


def shuffled_labels(
    X: Activations, y: Labels, folds: Folds, *, fit: Fit = fit_logistic, n_draws: int = 20, seed: int = 0
) -> LayerScores:
    """Return the AUROC with labels permuted by group: mean and spread over ``n_draws`` permutations.

    Each permutation is fitted on the same folds as the probe and tested on its own labels.
    """
    labels = torch.stack([one_vs_rest(permuted) for permuted in permuted_by_group(y, folds, n_draws, seed=seed)])
    scores = cross_validated_scores(X, labels.flatten(0, 1), folds, fit).unflatten(1, labels.shape[:2])
    draws = [macro_auroc(scores[:, i], permuted, folds, n_boot=1).value for i, permuted in enumerate(labels)]
    return _over_draws(draws, folds, "permutation")


def random_direction(X: Activations, y: Labels, folds: Folds, *, n_draws: int = 20, seed: int = 0) -> LayerScores:
    """Return the AUROC of projections on ``n_draws`` random directions; each fold's training rows set the sign."""
    labels, generator, draws = one_vs_rest(y), torch.Generator().manual_seed(seed), []
    for _ in range(n_draws):
        direction = torch.randn(X.shape[0], X.shape[2], 1, generator=generator).to(X)
        projection = (X @ direction)[..., 0]
        # Residual streams have a large mean; without it the class means below keep their digits.
        projection = projection - projection.mean(1, keepdim=True)
        scores = torch.stack([_signed(projection, positive.to(X.device), folds) for positive in labels], 1)
        draws.append(macro_auroc(scores, labels, folds, n_boot=1).value)
    return _over_draws(draws, folds, "random_directions")


def _signed(projection: Float[Tensor, "layer n"], y: Bool[Tensor, " n"], folds: Folds) -> Float[Tensor, "layer n"]:
    """Turn each fold's test projections so that its positive training rows have the larger mean."""
    train = folds.train.to(projection)
    positive, negative = train * y, train * ~y
    sign = (projection @ (positive / positive.sum(1, True) - negative / negative.sum(1, True)).T).sign()
    return (projection[:, None] * sign[..., None] * folds.test.to(projection)).sum(1)


def bag_of_tokens(
    token_ids: Sequence[Sequence[int]],
    y: Labels,
    folds: Folds,
    *,
    fit: Fit = fit_logistic,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> LayerScores:
    """Return the AUROC of a probe on token counts, as a single layer: what the words alone give away."""
    return cross_validated_auroc(token_counts(token_ids)[None], y, folds, fit=fit, n_boot=n_boot, seed=seed)


def token_counts(token_ids: Sequence[Sequence[int]]) -> Float[Tensor, "n vocab"]:
    """Count each token in each row; one column per token that occurs in any row, in the order of token ids."""
    columns = {token: i for i, token in enumerate(sorted({token for row in token_ids for token in row}))}
    counts = torch.zeros(len(token_ids), len(columns))
    for row, tokens in zip(counts, token_ids, strict=True):
        row += torch.tensor([columns[token] for token in tokens], dtype=torch.long).bincount(minlength=len(columns))
    return counts


def permuted_by_group(y: Labels, folds: Folds, n_draws: int, *, seed: int = 0) -> Tensor:
    """Return ``n_draws`` permutations of the labels that keep the labels of a group together.

    Groups are put in random order, with their labels permuted inside, and dealt onto the groups in their own order. A
    label that is constant within groups moves between groups; one that varies within groups also moves inside them. The
    number of rows with each label stays the same.
    """
    generator = torch.Generator().manual_seed(seed)
    groups = folds.groups[0]
    destination = groups.argsort(stable=True)
    n_groups, draws = int(groups.max()) + 1, []
    for _ in range(n_draws):
        inside = torch.randperm(len(y), generator=generator)
        order = torch.randperm(n_groups, generator=generator)
        # Rows sorted by their group's random rank: whole groups, each in the random order of `inside`.
        source = inside[order[groups[inside]].argsort(stable=True)]
        draws.append(torch.empty(len(y), dtype=y.dtype).scatter(0, destination, y.cpu()[source]))
    return torch.stack(draws)


def _over_draws(draws: list[Float[Tensor, " layer"]], folds: Folds, method: str) -> LayerScores:
    values = torch.stack(draws)
    low, high = spread(values.T)
    return LayerScores(values.mean(0), low, high, method, folds.test.shape[1], len(folds.groups[0].unique()))
