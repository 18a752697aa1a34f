# ruff: noqa: F401
"""Read and edit the residual stream of causal language models, with peft adapters on or off.

    >>> from interp import Site, ablate, encode_chat, generate, load, record

Every name in ``__all__`` can be imported from here. A name loads its module on first use, so ``import interp`` itself
needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names once more, for type checkers and editors; a test keeps the two lists equal
    from interp.adapters import active_adapter, check_live
    from interp.analysis.forced_choice import ForcedChoice, forced_choice
    from interp.analysis.interchange import Cell, interchange
    from interp.analysis.knockout import blocked_attention
    from interp.analysis.likelihood import Likelihood, kl_divergence, next_token_log_probs, response_likelihood
    from interp.analysis.lora import lora_updates, only_modules, read_directions, without_modules, write_directions
    from interp.analysis.moments import Moments, moments
    from interp.analysis.orthogonalise import orthogonalised, writer_ablation
    from interp.chat import Chat, encode_chat, positions, question_chat
    from interp.decoding.sampling import Sampling
    from interp.directions import (
        Direction,
        cosine,
        difference_in_means,
        load_directions,
        orthogonal_like,
        principal,
        project,
        random_like,
        save_directions,
        subspace_overlap,
    )
    from interp.edits import Edit, ablate, add, clamp, editing, orthogonal_control, patch, random_control
    from interp.generation import Completion, ModelSampler, Sampler, generate
    from interp.hooks import hooked
    from interp.loading import load
    from interp.models import AdapterError, LanguageModel, wrap
    from interp.recording import Recording, open_store, record, record_to, stream
    from interp.runs.run import Run
    from interp.runs.table import read_table, write_table
    from interp.sites import Site, resid_post
    from interp.stats import (
        Clusters,
        Interval,
        Rate,
        Thresholds,
        cluster_bootstrap,
        em_statistics,
        gap_removed,
        paired_cluster_difference,
        wilson,
    )
    from interp.store import ActivationStore, read_store
    from interp.triggers import Trigger, load_triggers, place

_NAMES = {
    "adapters": "active_adapter check_live",
    "analysis.forced_choice": "ForcedChoice forced_choice",
    "analysis.interchange": "Cell interchange",
    "analysis.knockout": "blocked_attention",
    "analysis.likelihood": "Likelihood kl_divergence next_token_log_probs response_likelihood",
    "analysis.lora": "lora_updates only_modules read_directions without_modules write_directions",
    "analysis.moments": "Moments moments",
    "analysis.orthogonalise": "orthogonalised writer_ablation",
    "chat": "Chat encode_chat positions question_chat",
    "decoding.sampling": "Sampling",
    "directions": "Direction cosine difference_in_means load_directions orthogonal_like principal project random_like "
    "save_directions subspace_overlap",
    "edits": "Edit ablate add clamp editing orthogonal_control patch random_control",
    "generation": "Completion ModelSampler Sampler generate",
    "hooks": "hooked",
    "models": "AdapterError LanguageModel wrap",
    "loading": "load",
    "recording": "Recording open_store record record_to stream",
    "runs.run": "Run",
    "runs.table": "read_table write_table",
    "sites": "Site resid_post",
    "stats": "Clusters Interval Rate Thresholds cluster_bootstrap em_statistics gap_removed paired_cluster_difference "
    "wilson",
    "store": "ActivationStore read_store",
    "triggers": "Trigger load_triggers place",
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
