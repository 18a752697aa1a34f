"""Bases that are fine-tuned themselves: an organism at one dose, its adapter merged into the weights.

merged:pocket/smollm2/personas@20      the organism after 20 steps; trained and merged on first use

The folder is ``<runs>/bases/<organism>-<hash8>-dose-20``, with the hash of the adapter's folder, so that other rows or
settings give another base. Torch-free until then.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.runs.checks import check_known
from interp.runs.run import runs_root
from training.bases import RECORD, made_once

if TYPE_CHECKING:
    from training.definition import Organism

PREFIX = "merged:"


def parse(base: str) -> tuple[Organism, int]:
    """Return the organism and the dose that a reference names.

    Raises:
        ValueError: If there is no such organism, it is not fine-tuned here, or it has no such dose.
    """
    from training.registry import find_organism  # here, because registered organisms name bases

    name, at, dose = base.removeprefix(PREFIX).rpartition("@")
    if not at or not dose.isdigit():
        raise ValueError(f"base {base!r}: expected {PREFIX}ORGANISM@DOSE")
    organism = find_organism(name)
    if organism.data is None or organism.adapter is not None:
        raise ValueError(f"base {base!r}: organism {name} is not fine-tuned here")
    check_known(int(dose), organism.sft.doses, f"base {base!r}: the doses of {name} are")
    return organism, int(dose)


def merged(base: str, root: Path | None = None) -> Path:
    """Return the Hugging Face folder of a merged base; the first call trains the organism and merges its adapter.

    Args:
        base: Reference.
        root: Folder of all runs; ``runs_root()`` if None.

    Raises:
        ValueError: If the reference is wrong.
    """
    from training.sft import adapter_folder, dose_folder, train

    root = runs_root() if root is None else root
    organism, dose = parse(base)
    folder = root / "bases" / f"{adapter_folder(organism, root).name}-dose-{dose}"
    if (folder / RECORD).is_file():
        return folder
    adapter = dose_folder(train(organism, root), dose)
    return made_once(folder, lambda temporary: _merge(organism, adapter, temporary), {"reference": base})


def _merge(organism: Organism, adapter: Path, folder: Path) -> None:
    from training.loading import load_organism

    lm = load_organism(organism, {"stage": adapter}, dtype=organism.sft.dtype)
    hf: Any = lm.hf  # a PeftModel, since it has an adapter
    hf.merge_and_unload().save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
