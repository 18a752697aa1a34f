"""How much each case does: ``FULL`` for numbers, ``QUICK`` to see that everything runs."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of every case."""

    rounds: int
    """Turns of each side, of which the median counts."""
    recording_rounds: int
    sampling_rounds: int
    storing_rounds: int
    d_model: int
    n_layers: int
    prompts: int
    """Prompts to record."""
    words: tuple[int, int]
    """Fewest and most words of a recorded prompt."""
    peer_batch: int
    """Prompts in a batch of every peer's loop."""
    peer_prompts: int
    """Prompts that TransformerLens and nnsight record, and on which memory is compared."""
    stored_prompts: tuple[int, int]
    """Few and many prompts recorded to a store."""
    worker_prompts: int
    """Prompts that each worker process records."""
    sampled_prompts: int
    peer_sampled_prompts: int
    """Prompts that TransformerLens and nnsight answer."""
    n_samples: int
    max_new_tokens: int
    rows: int
    """Completions decoded together, by both sides."""
    judged_questions: int
    judged_samples: int
    """Answers a question, where the effect of bfloat16 on EM rates is measured."""
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
    recording_rounds=3,
    sampling_rounds=2,
    storing_rounds=21,
    d_model=384,
    n_layers=6,
    prompts=2000,
    words=(8, 64),
    peer_batch=32,
    peer_prompts=480,
    stored_prompts=(1000, 20000),
    worker_prompts=300,
    sampled_prompts=48,
    peer_sampled_prompts=10,
    n_samples=50,
    max_new_tokens=24,
    rows=500,
    judged_questions=48,
    judged_samples=20,
    passes=5,
    store=(24, 8192, 768),
    probe=(24, 2000, 512),
    probe_share=2,
)
QUICK = Size(
    rounds=1,
    recording_rounds=1,
    sampling_rounds=1,
    storing_rounds=1,
    d_model=32,
    n_layers=2,
    prompts=6,
    words=(3, 12),
    peer_batch=4,
    peer_prompts=4,
    stored_prompts=(8, 16),
    worker_prompts=4,
    sampled_prompts=3,
    peer_sampled_prompts=2,
    n_samples=2,
    max_new_tokens=4,
    rows=4,
    judged_questions=3,
    judged_samples=2,
    passes=1,
    store=(2, 300, 8),
    probe=(2, 80, 8),
    probe_share=1,
)
