"""Trials of ``semcon reproduce`` with its worker processes: their number, and kills of the command alone or of all."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.torture.stages import ROOT
from tests.torture.trials import Torture, flaws

TABLE = "summary.csv"
KIND = "kill pipeline"


def start(root: Path, workers: int) -> subprocess.Popen[str]:
    """Start the command in a process group of its own."""
    command = [sys.executable, "-m", "tests.torture.command", str(root), str(workers)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet, pipe = subprocess.DEVNULL, subprocess.PIPE
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=quiet, stderr=pipe, text=True, start_new_session=True
    )


def ends_well(whole: Path, root: Path, workers: int) -> tuple[bool, str]:
    """Run the command to its end; tell whether the table is the one in ``whole`` and no run has a fault."""
    process = start(root, workers)
    output = process.communicate()[1]
    table = root / TABLE
    equal = process.returncode == 0 and table.read_bytes() == (whole / TABLE).read_bytes()
    return equal and not flaws(root), f"status {process.returncode}: {output[-600:]}"


def workers_agree(torture: Torture) -> Path:
    """Run with one worker, then with two and four: all tables are the same. Return the folder of the first."""
    whole, began = torture.folder / "workers-1", time.monotonic()
    process = start(whole, 1)
    output = process.communicate()[1]
    if process.returncode:
        raise SystemExit(f"torture: the undisturbed pipeline failed with status {process.returncode}: {output}")
    torture.seconds["pipeline"] = time.monotonic() - began
    for workers in (2, 4):
        torture.count("workers", *ends_well(whole, torture.folder / f"workers-{workers}", workers))
    return whole


def killed(torture: Torture, whole: Path, n: int) -> None:
    """Kill the command, or it and its workers, at random moments, until it comes to its end."""
    seconds, root, chance = torture.seconds["pipeline"], torture.folder / "killed-pipeline", torture.chance
    while torture.tried(KIND) < n and torture.left(2 * seconds):
        since, goal = 0, min(chance.randint(2, 5), n - torture.tried(KIND))
        while since < goal and torture.left(2 * seconds):
            process = start(root, chance.choice((1, 2, 4)))
            try:
                process.wait(chance.uniform(0.1, 0.9) * seconds)
                break
            except subprocess.TimeoutExpired:
                (os.killpg if chance.random() < 0.5 else os.kill)(process.pid, signal.SIGKILL)
                process.communicate()  # ends with the last worker
                since += 1
        survived, note = ends_well(whole, root, chance.choice((1, 2)))
        torture.count(KIND, survived, note, n=max(since, int(not survived)))
        shutil.rmtree(root)
