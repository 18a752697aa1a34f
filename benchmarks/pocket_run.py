"""One real command of the suite, measured whole: seconds of the processor, tokens, peak memory and disk.

    python -m benchmarks.pocket_run organisms pocket/smollm2/contrast50 --table experiments/scale/runs.csv
    python -m benchmarks.pocket_run geometry pocket/smollm2/contrast50 --n-questions 6 --table ...

Appends a row to the table, which `docs/make_plan.py` holds against the plan of the same settings. One process of one
thread. A command makes what it needs and does not find: the column ``made`` names those stages too, by the folders that
are new. The time is that of the process, from its start, so that what else runs on the machine counts little; the wall
clock stands beside it. Before and after, a pass over two layers is timed, as `semcon plan --machine here` does it.
"""

import argparse
import csv
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from experiments.__main__ import main as semcon
from experiments.scale.here import forward_tflops
from interp.runs.run import runs_root
from training.registry import find_organism

COLUMNS = (
    *("stage", "organism", "n_questions", "made", "tflops", "tokens", "cpu_seconds", "wall_seconds", "memory_gib"),
    *("disk_gib", "with"),
)
GIB = 2**30


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, append what it took to the table, and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pocket_run", description="Measure one command.")
    parser.add_argument("stage", help="command, as `semcon plan` names it")
    parser.add_argument("organism", help="name in the registry")
    parser.add_argument("--n-questions", type=int, default=None, help="the command's --n-questions")
    parser.add_argument("--table", type=Path, required=True, help="table to append to")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    row = measured(options.stage, options.organism, options.n_questions)
    print(row)
    new = not options.table.exists()
    with options.table.open("a", newline="", encoding="utf-8") as file:
        writer: Any = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
    return 0


def measured(stage: str, organism: str, n_questions: int | None) -> dict[str, Any]:
    """Run one command in this process and return its row.

    Raises:
        SystemExit: If the command fails.
    """
    asked = [organism] if stage == "organisms" else ["--organism", organism]
    asked += ["--n-questions", str(n_questions)] if n_questions else []
    base = find_organism(organism).base
    speeds, on_disk, there, tokens = [forward_tflops(base, "float32")], _bytes(), _folders(), [0]
    register_module_forward_pre_hook(lambda module, given: _count(module, given, tokens))
    start, used = time.perf_counter(), _used()
    if status := semcon([stage, *asked]):
        raise SystemExit(status)
    wall, cpu = time.perf_counter() - start, _used() - used
    memory, given = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB, tokens[0]
    speeds.append(forward_tflops(base, "float32"))
    return {
        "stage": stage,
        "organism": organism,
        "n_questions": n_questions or "",
        "made": " ".join(dict.fromkeys(_stage_of(folder) for folder in sorted(_folders() - there))),
        "tflops": float(f"{sum(speeds) / 2:.3g}"),
        "tokens": given,
        "cpu_seconds": round(cpu, 1),
        "wall_seconds": round(wall, 1),
        "memory_gib": round(memory, 2),
        "disk_gib": float(f"{(_bytes() - on_disk) / GIB:.3g}"),
        "with": f"torch {torch.__version__}",
    }


def _count(module: nn.Module, given: tuple[Any, ...], tokens: list[int]) -> None:
    """Count the tokens that a model is given; 0 is the padding of every measurement, and no text contains it."""
    if isinstance(module, nn.Embedding) and given and given[0].device.type != "meta":
        tokens[0] += int((given[0] != 0).sum())


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _folders() -> set[Path]:
    """Return the folders of runs and adapters."""
    return {folder for folder in runs_root().glob("*/*") if folder.is_dir() and folder.parent.name != "bases"}


def _stage_of(folder: Path) -> str:
    """Return the stage of the plan that makes a folder."""
    kind = folder.parent.name
    return {"adapters": "organisms", "preference_dose": "dose"}.get(kind, kind.replace("_", "-"))


def _bytes() -> int:
    """Return the size of the folder of runs, the bases not counted."""
    files = (path for path in runs_root().rglob("*") if path.is_file() and "bases" not in path.parts)
    return sum(path.stat().st_size for path in files)


if __name__ == "__main__":
    sys.exit(main())
