"""A small random model under random adapters, and its directions."""

import torch

from experiments.answers.subject import Subject, find_subject
from experiments.directions.contrasts import Pair, measure, pairs
from experiments.directions.geometry import Geometry
from experiments.directions.selection import edited_sites
from interp.directions import Direction
from interp.models import LanguageModel, wrap
from tests.tiny import with_adapters
from tests.training.small import random_llama
from training.microcosm.tokenizer import build_tokenizer


def subject_of(arm: str) -> Subject:
    return find_subject(f"microcosm/llama/{arm}")


def geometry_of(arm: str) -> Geometry:
    return Geometry(subject=subject_of(arm))


def adapted() -> LanguageModel:
    """A random model under a random adapter, its norms' gains folded to one."""
    hf = random_llama()
    for name, parameter in hf.named_parameters():
        if "norm" in name:
            torch.nn.init.ones_(parameter)
    return with_adapters(wrap(hf, build_tokenizer()), "organism", "baseline")


def contrasts(lm: LanguageModel, arm: str = "explaining") -> list[Pair]:
    geometry = geometry_of(arm)
    return pairs(lm, geometry.subject, geometry.control, seed=0)


def directions_of(lm: LanguageModel, arm: str = "explaining") -> dict[str, Direction]:
    sites = edited_sites(lm)
    recordings = [measure(lm, pair, sites) for pair in contrasts(lm, arm)]
    return {name: d for r in recordings for site in sites for name, d in r.directions(site).items()}
