"""`semcon inspect-log`: a finished em-rate run as a log of Inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from experiments.inspecting.extra import require_inspect

SUFFIXES = (".eval", ".json")


def inspect_log(run: Annotated[Path, tyro.conf.Positional], *, out: Path | None = None) -> None:
    """Write a finished em-rate run as a log of Inspect, for `inspect view`. With --log FILE, read a log back in.

    Args:
        run: Folder of the run, such as runs/em_rate/HASH.
        out: The log (.eval or .json); by default inspect/RUN.eval in the folder of all runs.
    """
    require_inspect()
    if out and out.suffix not in SUFFIXES:
        raise ValueError(f"--out {out}: a log ends in {' or '.join(SUFFIXES)}")
    if not run.is_dir():
        raise FileNotFoundError(f"{run}: no such run")
    from experiments.inspecting.exported import exported, write_log

    log, whole = exported(run), run.resolve()
    out = out or whole.parents[1] / "inspect" / f"{whole.parent.name}-{whole.name}.eval"
    write_log(log, out)
    print(f"wrote {out}: {len(log.samples or [])} answers; `inspect view --log-dir {out.parent}` shows them")
