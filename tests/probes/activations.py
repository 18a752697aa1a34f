"""Synthetic activations with a planted direction and a residual stream's uneven spectrum and large mean."""

import torch
from torch import Tensor


def planted(
    *, layers: int = 2, questions: int = 20, rows: int = 6, width: int = 16, strength: float = 3.0, seed: int = 0
) -> tuple[Tensor, Tensor, list[str], Tensor]:
    """Return X (layer, n, width), y (n), the question of each row, and the planted unit direction of each layer.

    Labels alternate within a question; layer 0 carries no signal.
    """
    generator = torch.Generator().manual_seed(seed)
    n = questions * rows
    y = torch.arange(n) % 2 == 1
    spectrum = torch.arange(1, width + 1, dtype=torch.float64) ** -0.7
    X = torch.randn(layers, n, width, generator=generator, dtype=torch.float64) * spectrum
    directions = torch.nn.functional.normalize(
        torch.randn(layers, width, generator=generator, dtype=torch.float64), dim=1
    )
    signal = strength * torch.arange(layers).clamp(max=1)
    X = X + signal[:, None, None] * (y.double() - 0.5)[None, :, None] * directions[:, None]
    X = X + 50 * torch.randn(layers, 1, width, generator=generator, dtype=torch.float64)
    return X, y, [f"question {i // rows}" for i in range(n)], directions


def categories(n: int = 4, width: int = 12, signal: float = 3.0) -> tuple[torch.Tensor, ...]:
    """Return activations of 2 layers with one direction per category in layer 1; categories, questions, phrasings."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(24 * n * 4) % n
    phrasing, question = torch.arange(len(y)) // n % 4, torch.arange(len(y)) // (4 * n)
    means = torch.randn(n, width, generator=generator)
    X = torch.randn(2, len(y), width, generator=generator)
    X[1] += signal * torch.nn.functional.normalize(means, dim=1)[y]
    return X, y, question, phrasing
