"""A base, with or without a finished adapter, as an organism that nobody trains. Torch-free."""

import re
from pathlib import Path

from training.definition import Organism
from training.references import base_source
from training.registry import ORGANISMS

_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")
_PLAIN = re.compile(r"[^\w.-]+")


def finished_organism(base: str, adapter: str | None) -> Organism:
    """Return a model as an organism named ``own/<base>/<adapter>``, or ``own/<base>/base``.

    Args:
        base: A base reference, or the organisms' family that has it, such as pocket/smollm2.
        adapter: Folder or Hugging Face name of its adapter.

    Raises:
        ValueError: If one of them is not there.
    """
    registered = ORGANISMS.get(f"{base}/base")
    base = registered.base if registered else base
    source = base_source(base)
    for kind, reference in (("base", source), ("adapter", adapter)):
        if reference == "" or (reference and not Path(reference).exists() and not _HUB.fullmatch(reference)):
            raise ValueError(f"{kind} {reference!r}: no such folder, and no name on the Hugging Face hub")
    if adapter and Path(adapter).is_dir() and not (Path(adapter) / "adapter_config.json").is_file():
        raise ValueError(f"adapter {adapter!r}: no adapter_config.json in it")
    family = _PLAIN.sub("-", Path(base.rpartition("/")[2]).name).strip("-.").lower() or "mine"
    arm = _PLAIN.sub("-", Path(adapter).name).strip("-.") if adapter else "base"
    return Organism(name=f"own/{family}/{arm or 'adapter'}", base=base, adapter=adapter)
