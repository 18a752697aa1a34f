"""Load the model of an organism."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from interp.runs.run import note_facts
from training.definition import Organism
from training.references import base_path

if TYPE_CHECKING:
    from interp.models import LanguageModel


DTYPE = "SEMCON_DTYPE"
"""Environment variable with the dtype in which organisms are measured."""


def measured_dtype(organism: Organism) -> str:
    """Return the dtype in which an organism is measured: ``$SEMCON_DTYPE``, else that of its training."""
    return os.environ.get(DTYPE) or organism.sft.dtype


def load_organism(
    organism: Organism, adapters: Mapping[str, Path] | None = None, *, dtype: str | None = None
) -> LanguageModel:
    """Load an organism's base with its template options and with adapters by name; say once where models are.

    The run in progress notes the options that decide what the chat template writes, a pinned date among them.

    Args:
        organism: The organism.
        adapters: Name -> folder.
        dtype: Dtype of the weights; by default that in which the organism is measured.
    """
    from interp.loading import load, place
    from interp.text.template import template_options

    options = organism.template_options
    dtype = dtype or measured_dtype(organism)
    lm = load(base_path(organism.base), adapters=adapters, dtype=dtype, template_options=options)
    if os.environ.get("SEMCON_BAR", "1") == "1":  # the first of several worker processes speaks for all
        _say(f"models are on {place(lm)}")
    if noted := template_options(lm.tokenizer):
        note_facts(template_options=noted)
    return lm


@cache
def _say(line: str) -> None:
    """Print a line on standard error, each line once."""
    print(line, file=sys.stderr, flush=True)
