"""Transfer: probes fitted in one setting (a trigger, an organism, a seed) and tested in another."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probes.evaluate import Labels, held_out_of, one_vs_rest
from probes.logistic import fit_logistic
from probes.metrics import N_BOOT, LayerScores, macro_auroc
from probes.probe import Activations, Fit
from probes.splits import Folds, by_question


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """Activations of one setting with labels and groups.

    Attributes:
        y: Two classes as booleans, or classes as numbers, which mean the same in every set.
        groups: The group of each row, such as its question.
        phrasings: The text behind each row, where texts are held out too.
    """

    X: Activations
    y: Labels
    groups: Sequence[Hashable]
    phrasings: Sequence[Hashable] | None = None


def transfer_scores(
    sets: Mapping[str, LabelledSet],
    *,
    fit: Fit = fit_logistic,
    n_folds: int = 5,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> dict[tuple[str, str], LayerScores]:
    """Return the AUROC on the target set of probes fitted on the source set, by (source, target).

    Classes give the mean AUROC of each class against the rest.

    Groups are held out across sets: no probe is trained on a question that tests it, and where the sets have phrasings,
    on no such phrasing either. The AUROC of a set on itself is therefore its cross-validated one.

    Raises:
        ValueError: If only some sets have phrasings, or there are fewer than ``n_folds`` groups.
    """
    folds, scores = _shared_folds(sets, n_folds, seed), {}
    for source, learned in sets.items():
        labels, used = one_vs_rest(learned.y), folds[source]
        k = len(labels)  # classes become further folds, as in `cross_validated_scores`
        repeated = Folds(used.train.repeat(k, 1), used.test.repeat(k, 1), used.groups)
        probe = fit(learned.X, labels.repeat_interleave(len(used), 0), repeated)
        for target, tested in sets.items():
            by_class = probe.scores(tested.X).unflatten(1, (k, -1))
            held_out = torch.stack([held_out_of(layer, folds[target]) for layer in by_class])
            sides = one_vs_rest(tested.y)
            scores[source, target] = macro_auroc(held_out, sides, folds[target], n_boot=n_boot, seed=seed)
    return scores


def transfer_matrix(
    sets: Mapping[str, LabelledSet], *, fit: Fit = fit_logistic, n_folds: int = 5, seed: int = 0
) -> Float[Tensor, "layer source target"]:
    """Return the values of ``transfer_scores`` as a matrix, in the order of ``sets``."""
    scores = transfer_scores(sets, fit=fit, n_folds=n_folds, n_boot=1, seed=seed)
    return torch.stack([torch.stack([scores[a, b].value for b in sets], -1) for a in sets], 1)


def _shared_folds(sets: Mapping[str, LabelledSet], n_folds: int, seed: int) -> dict[str, Folds]:
    """Return folds with the same questions and phrasings in every set: fold i of one belongs to fold i of another."""
    if len({labelled.phrasings is None for labelled in sets.values()}) > 1:
        raise ValueError("transfer: either every set has phrasings or none has")
    names = list(dict.fromkeys(group for labelled in sets.values() for group in labelled.groups))
    parts = by_question(names, n_folds, seed=seed).test
    number = {name: i for i, name in enumerate(names)}
    part_of = dealt_phrasings(list(sets.values()), n_folds, seed=seed)
    folds = {}
    for name, labelled in sets.items():
        columns = torch.tensor([number[group] for group in labelled.groups])
        test, train = parts[:, columns], ~parts[:, columns]
        if labelled.phrasings is not None:
            # One fold per pair (part of questions, part of phrasings), as in `by_question_and_phrasing`.
            texts = torch.tensor([part_of[text] for text in labelled.phrasings])
            in_part = texts == torch.arange(max(part_of.values()) + 1)[:, None]
            test, train = ((a[:, None] & b).flatten(0, 1) for a, b in ((test, in_part), (train, ~in_part)))
        folds[name] = Folds(train, test, columns[None])
    return folds


def dealt_phrasings(sets: Sequence[LabelledSet], n_parts: int, *, seed: int = 0) -> dict[Hashable, int]:
    """Return the part of each phrasing: the same in every set, with both classes of each set spread over all parts.

    There are ``n_parts`` parts, or as many as the class with the fewest phrasings has.

    Raises:
        ValueError: If a class of a set has only one phrasing.
    """
    classes = [
        list(dict.fromkeys(text for text, y in zip(s.phrasings, s.y.tolist(), strict=True) if y == label))
        for s in sets
        if s.phrasings is not None
        for label in sorted({*s.y.tolist()}, reverse=True)
    ]
    if classes and min(map(len, classes)) < 2:
        raise ValueError("transfer: a class of a set has one phrasing; holding it out leaves none to learn from")
    n_parts = min([n_parts, *map(len, classes)])
    generator, part_of = torch.Generator().manual_seed(seed), {}
    for texts in classes:
        sizes = [sum(part_of.get(text) == part for text in texts) for part in range(n_parts)]
        for i in torch.randperm(len(texts), generator=generator).tolist():
            if texts[i] not in part_of:
                part_of[texts[i]] = sizes.index(min(sizes))
                sizes[part_of[texts[i]]] += 1
    return part_of
