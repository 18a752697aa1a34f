"""Load the model of an organism."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from interp.runs.run import note_facts
from training.definition import Organism
from training.references import base_path

if TYPE_CHECKING:
    from interp.models import LanguageModel


def load_organism(organism: Organism, adapters: Mapping[str, Path] | None = None) -> LanguageModel:
    """Load an organism's base, in the dtype it was trained in and with its template options, with adapters by name.

    The run in progress notes the options that decide what the chat template writes, a pinned date among them.
    """
    from interp.loading import load
    from interp.text.template import template_options

    options = organism.template_options
    lm = load(base_path(organism.base), adapters=adapters, dtype=organism.sft.dtype, template_options=options)
    if noted := template_options(lm.tokenizer):
        note_facts(template_options=noted)
    return lm
