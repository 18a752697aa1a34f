"""How much each case does: ``FULL`` and ``ACCELERATOR`` for numbers, ``QUICK`` to see that everything runs."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of every case; the defaults are those of the published table."""

    rounds: int = 5
    """Timed turns of each side, of which the median counts, where no other field says so."""
    recording_rounds: int = 3
    sampling_rounds: int = 2
    storing_rounds: int = 21
    d_model: int = 384
    n_layers: int = 6
    prompts: int = 2000
    """Prompts to record."""
    words: tuple[int, int] = (8, 64)
    """Fewest and most words of a recorded prompt."""
    peer_batch: int = 32
    """Prompts per batch in the loops of all peers."""
    peer_prompts: int = 480
    """Prompts recorded by TransformerLens and nnsight, and by all sides where memory is compared."""
    stored_prompts: tuple[int, int] = (1000, 20000)
    """Few and many prompts recorded to a store."""
    worker_prompts: int = 300
    """Prompts recorded by each worker process."""
    sampled_prompts: int = 48
    """Prompts to answer."""
    peer_sampled_prompts: int = 10
    """Prompts answered by TransformerLens and nnsight."""
    n_samples: int = 50
    """Completions per prompt."""
    max_new_tokens: int = 24
    rows: int = 500
    """Completions decoded together, on both sides."""
    judged_questions: int = 48
    """Questions for the effect of bfloat16 on EM rates."""
    judged_samples: int = 20
    """Answers per question for the effect of bfloat16 on EM rates."""
    passes: int = 5
    """Forward passes per turn for the overhead of hooks."""
    store: tuple[int, int, int] = (24, 8192, 768)
    """Layers, prompts and width of the stored activations."""
    probe: tuple[int, int, int] = (24, 2000, 512)
    """Layers, rows and width of the probed activations."""
    probe_share: int = 2
    """Layers on which scikit-learn, which fits them one by one, is timed."""
    folds: int = 5
    batch_tokens: int = 16384
    """Tokens per batch when recording on an accelerator."""
    trained_rows: int = 8
    """Rows of a LoRA step."""
    pocket_rounds: int = 3
    pocket_layers: int = 30
    """Layers of the model of the pocket scale's shape."""
    choices: int = 36
    """Questions of a forced choice."""


FULL = Size()
ACCELERATOR = Size(prompts=512, words=(32, 256), sampled_prompts=16, n_samples=16, max_new_tokens=128)
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
    batch_tokens=64,
    trained_rows=2,
    pocket_rounds=1,
    pocket_layers=1,
    choices=2,
)
