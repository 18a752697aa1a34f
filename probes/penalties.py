"""L2 penalties: the default path, and the inner folds on which one of them is chosen."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from probes.probe import FoldLabels, check_classes
from probes.splits import Folds

L2S = tuple(10.0**power for power in range(-2, 5))


def check_l2s(l2s: Sequence[float]) -> None:
    """Refuse penalties that are not positive.

    Raises:
        ValueError: Names them.
    """
    if not l2s or not all(l2 > 0 for l2 in l2s):
        raise ValueError(f"l2s={tuple(l2s)}: expected positive penalties")


def inner_folds(
    y: FoldLabels, folds: Folds, n_inner: int
) -> tuple[Bool[Tensor, "inner n"], Bool[Tensor, "inner n"], Int[Tensor, " inner"]]:
    """Return training rows, test rows and outer fold of each inner split.

    Raises:
        ValueError: If a fold has fewer than ``n_inner`` groups, or an inner split trains on one class only.
    """
    inner = [folds.inner(fold, n_inner) for fold in range(len(folds))]
    train = torch.cat([split.train for split in inner]).to(y.device)
    test = torch.cat([split.test for split in inner]).to(y.device)
    outer = torch.repeat_interleave(torch.tensor([len(split) for split in inner])).to(y.device)
    check_classes(y if y.ndim == 1 else y[outer], train)
    return train, test, outer
