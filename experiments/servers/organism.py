"""The organism that a server answers for: its name there, and its tokenizer here."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from experiments.servers.reference import read_server
from experiments.servers.sampler import ServerSampler, served_name, store_beside
from training.definition import Organism
from training.references import base_path


@cache
def served(organism: Organism, reference: str) -> str:
    """Return the name under which a server has an organism, once per process; see ``served_name``."""
    return served_name(read_server(reference), organism.base, organism.adapter)


def sampler_of(organism: Organism, reference: str, folder: Path) -> ServerSampler:
    """Return who samples an organism's answers, with the answers that a run's folder has already."""
    from interp.loading import outline

    lm = outline(base_path(organism.base), template_options=organism.template_options)
    return ServerSampler(read_server(reference), lm, served(organism, reference), store_beside(folder))
