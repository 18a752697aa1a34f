"""Try to make the suite lose something: python -m tests.torture [--quick] [--minutes N] [--processes N] [--seed N].

Every trial ends with the command run once more. It survives if that gives, byte for byte, the files of an undisturbed
run, or refuses with one line and exit status 2 what was damaged. Anything else is lost, and the exit status is 1.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", TQDM_DISABLE="1")  # forks need a process of one thread

from tests.torture import pipeline
from tests.torture.forks import served
from tests.torture.stages import judge_reply, stages
from tests.torture.trials import Torture

TRIALS = {
    "kill": Torture.killed,
    "full": Torture.full_disk,
    "limit": Torture.short_files,
    "read-only": Torture.read_only,
    "writers": Torture.two_writers,
    "flip": Torture.flipped,
    "link": Torture.linked,
}
KINDS = (*TRIALS, "workers", "pipeline")
ROUNDS = {"flip": 5, "link": 5, "full": 3, "limit": 3, "read-only": 1, "writers": 1}
Counts = Counter[tuple[str, str]]

_session: Torture


def tasks(session: Torture, kinds: set[str], quick: bool) -> list[tuple[str, int]]:
    """Return kinds of trial and stages, round by round, so that a limit of time cuts each a little; kills the least."""
    some = [session.chance.randrange(len(session.stages))] if quick else range(len(session.stages))
    rounds = {kind: range(1 if quick else n) for kind, n in ROUNDS.items()}
    every = [(number, i, kind) for kind in TRIALS if kind != "kill" for number in rounds[kind] for i in some]
    for index, stage in enumerate(session.stages):
        every += [(number / 3, index, "kill") for number in range(1 if quick else stage.kills)]
    whole = [] if quick else ["pipeline"] if "pipeline" in kinds else ["workers"] if "workers" in kinds else []
    return [(kind, 0) for kind in whole] + [(kind, index) for _, index, kind in sorted(every) if kind in kinds]


def torture(session: Torture, kinds: set[str], quick: bool, processes: int) -> Counts:
    """Run all trials in so many processes; print a table every minute."""
    session.undisturbed()
    counts: Counts = Counter()
    printed, seed = time.monotonic(), session.chance.random()
    with ProcessPoolExecutor(processes, get_context("fork"), _begin, (session,)) as pool:
        numbered = enumerate(tasks(session, kinds, quick))
        trials = [pool.submit(_trial, *task, f"{seed} {number}") for number, task in numbered]
        for trial in as_completed(trials):
            counts.update(trial.result())
            if time.monotonic() > printed + 60:
                printed = time.monotonic()
                print(f"{table(counts)}\n", file=sys.stderr, flush=True)
    return counts


def _begin(session: Torture) -> None:
    """Give a process a folder of its own; the undisturbed runs are shared."""
    global _session
    folder = session.folder / f"process-{os.getpid()}"
    folder.mkdir()
    _session = replace(session, folder=folder)


def _trial(kind: str, index: int, seed: str) -> Counts:
    """Run one trial, with random numbers of its own; return what came of it."""
    _session.chance.seed(seed)
    _session.counts.clear()
    if kind in TRIALS:
        TRIALS[kind](_session, index)
    else:
        whole = pipeline.workers_agree(_session)
        if kind == "pipeline":
            pipeline.killed(_session, whole, 12)
    return Counter(_session.counts)


def table(counts: Counts) -> str:
    """Return one line per kind of trial, and one of all kills."""
    totals = Counter(counts)
    for (kind, outcome), n in counts.items():
        if kind.startswith("kill "):
            totals["all kills", outcome] += n
    rows = [(kind, totals[kind, "survived"], totals[kind, "lost"]) for kind in sorted({kind for kind, _ in totals})]
    return "\n".join(f"{kind:14}  tried {s + n:4}  survived {s:4}  lost {n:4}" for kind, s, n in rows)


def main() -> int:
    """Run every kind of trial; print one line per kind."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="one trial of every kind but the pipeline")
    parser.add_argument("--minutes", type=float, help="no trial starts that would end later; default 30, or 3 if quick")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="trials that run at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help=", ".join(KINDS))
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder, served(judge_reply) as judge:
        until = began + 60 * (options.minutes or (3 if options.quick else 30))
        most = 1 if options.quick else 6
        session = Torture(Path(folder), Path(folder), stages(judge), until, random.Random(options.seed), most)
        counts = torture(session, set(options.kinds), options.quick, options.processes)
        print(", ".join(f"{name} {seconds:.1f} s" for name, seconds in session.seconds.items()))
        print(f"{table(counts)}\n{time.monotonic() - began:.0f} s", flush=True)
    return int(any(outcome == "lost" and n for (_, outcome), n in counts.items()))


if __name__ == "__main__":
    sys.exit(main())
