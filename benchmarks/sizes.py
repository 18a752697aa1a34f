"""How much each case does: ``FULL`` for numbers, ``QUICK`` to see that everything runs."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of every case."""

    rounds: int
    """Turns of each side, of which the median counts."""
    sampling_rounds: int
    d_model: int
    n_layers: int
    prompts: int
    """Prompts to record."""
    words: tuple[int, int]
    """Fewest and most words of a recorded prompt."""
    peer_batch: int
    """Prompts in a batch of the Hugging Face loop."""
    sampled_prompts: int
    n_samples: int
    max_new_tokens: int
    rows: int
    """Completions decoded together, by both sides."""
    passes: int
    """Forward passes a turn, where the overhead of hooks is measured."""
    store: tuple[int, int, int]
    """Layers, prompts and width of the activations stored."""
    probe: tuple[int, int, int]
    """Layers, rows and width of the activations probed."""
    probe_share: int
    """Layers of these that scikit-learn, which takes them one by one, is timed on."""
    folds: int = 5


FULL = Size(
    rounds=5,
    sampling_rounds=3,
    d_model=384,
    n_layers=6,
    prompts=400,
    words=(16, 128),
    peer_batch=32,
    sampled_prompts=48,
    n_samples=20,
    max_new_tokens=40,
    rows=500,
    passes=5,
    store=(24, 8192, 768),
    probe=(24, 2000, 512),
    probe_share=2,
)
QUICK = Size(
    rounds=1,
    sampling_rounds=1,
    d_model=32,
    n_layers=2,
    prompts=6,
    words=(3, 12),
    peer_batch=4,
    sampled_prompts=3,
    n_samples=2,
    max_new_tokens=4,
    rows=4,
    passes=1,
    store=(2, 300, 8),
    probe=(2, 80, 8),
    probe_share=1,
)
