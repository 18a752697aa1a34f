"""Doses and checkpoints of a training, written by the main process whether the model is whole or in shards."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import TrainerCallback

from interp.runs.files import altered, atomic_write_text
from interp.runs.run import output_digests
from training.launch.processes import is_main, of_main, refuse, sharded, wait_for_all, world_size

Progress = Callable[[int, float], None]
"""Called as progress(step, loss in nats per supervised token)."""

CHECKSUMS = "sha256.json"
"""File of a checkpoint that names the digests of all its files."""


class KeepDoses(TrainerCallback):
    """Saves the adapter at each dose and reports the loss."""

    def __init__(self, folders: Mapping[int, Path], progress: Progress | None) -> None:
        self.folders, self.progress = folders, progress

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        """Save the adapter if the step is a dose."""
        if state.global_step in self.folders:
            tensors = _gathered(model)
            if is_main():
                _sort(model)
                model.save_pretrained(str(self.folders[state.global_step]), state_dict=tensors)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Report the loss."""
        if self.progress is not None and is_main() and logs and "loss" in logs:
            self.progress(state.global_step, logs["loss"])


def _sort(model: Any) -> None:
    """Put the module names of an adapter's config in order: peft keeps them in sets, whose order is chance."""
    for config in model.peft_config.values():
        for name, value in vars(config).items():
            if isinstance(value, set):
                setattr(config, name, sorted(value))


def _gathered(model: Any) -> dict[str, Any] | None:
    """Return the adapter's tensors, gathered on the main process where the model is in shards; else None."""
    if not sharded():
        return None
    whole = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    return get_model_state_dict(model, options=whole)


class VouchForCheckpoints(TrainerCallback):
    """Write the digests of every file of a checkpoint, and of the doses saved before it, once all of them are there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Vouch for the checkpoint that was just written."""
        wait_for_all()  # every process writes its own part
        if not is_main():
            return
        checkpoint = self.folder / "trainer" / f"checkpoint-{state.global_step}"
        (checkpoint / CHECKSUMS).unlink(missing_ok=True)
        folders = (checkpoint, *self.folder.glob("dose-*"))
        digests = {f"{f.relative_to(self.folder)}/{name}": d for f in folders for name, d in output_digests(f).items()}
        atomic_write_text(checkpoint / CHECKSUMS, json.dumps(digests, indent=1) + "\n")


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint of which every file is there and unchanged, None to start again.

    Raises:
        ValueError: If it was written by another number of processes, or with another way to hold the model.
    """
    steps = {p: p.name.removeprefix("checkpoint-") for p in (folder / "trainer").glob("checkpoint-*")}
    newest = sorted((p for p, step in steps.items() if step.isdecimal()), key=lambda p: int(steps[p]), reverse=True)
    path = of_main(next((str(path) for path in newest if _is_whole(folder, path / CHECKSUMS)), None))
    if path is not None and (before := _layout(Path(path))) != (now := (world_size(), sharded())):
        refuse(f"{path}: written by {_words(*before)}, not {_words(*now)}; go on as before, or delete {folder}")
    return path


def _is_whole(folder: Path, checksums: Path) -> bool:
    """Tell whether a checkpoint is whole. The trainer itself goes on without an optimiser's state that is missing."""
    try:
        digests = json.loads(checksums.read_text())
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(digests, dict) and not altered(folder, digests)


def _layout(checkpoint: Path) -> tuple[int, bool]:
    """Return how many processes wrote a checkpoint, and whether the model was in shards."""
    return len(list(checkpoint.glob("rng_state*.pth"))) or 1, any(checkpoint.glob("pytorch_model_fsdp*"))


def _words(processes: int, shards: bool) -> str:
    return f"{processes} process{'es' if processes > 1 else ''}{' with FSDP' if shards else ''}"
