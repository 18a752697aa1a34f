"""Try to make the suite lose something: python -m tests.torture [--quick] [--minutes N] [--seed N].

Every trial ends with the command run once more. It survives if that gives, byte for byte, the files of an undisturbed
run, or refuses with one line and exit status 2 what was damaged. Anything else is lost, and the exit status is 1.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", TQDM_DISABLE="1")  # forks need a process of one thread

from tests.torture import pipeline
from tests.torture.forks import served
from tests.torture.stages import judge_reply, stages
from tests.torture.trials import Torture

KINDS = ("kill", "full", "limit", "read-only", "writers", "flip", "link", "workers", "pipeline")


def torture(session: Torture, kinds: set[str], quick: bool) -> None:
    """Run trials of each kind, over all stages in turn, so that a limit of time cuts each kind a little."""
    session.undisturbed()
    every = range(len(session.stages))
    some = [session.chance.choice(every)] if quick else every
    trials = {
        "full": session.full_disk,
        "limit": session.short_files,
        "read-only": session.read_only,
        "writers": session.two_writers,
        "flip": session.flipped,
        "link": session.linked,
    }
    rounds = {"flip": 5, "link": 5, "full": 3, "limit": 3}
    for number in range(1 if quick else max(stage.kills for stage in session.stages)):
        for index in every if session.left(60) else ():
            if "kill" in kinds and session.tried(f"kill {session.stages[index].name}") < session.stages[index].kills:
                session.killed(index, 1 if quick else 3)
            for kind, trial in trials.items():
                if kind in kinds and index in some and number < rounds.get(kind, 1):
                    trial(index)
        print(f"round {number + 1}\n{table(session)}", file=sys.stderr, flush=True)
    if kinds & {"workers", "pipeline"} and not quick:
        whole = pipeline.workers_agree(session)
        if "pipeline" in kinds:
            pipeline.killed(session, whole, 12, session.chance)


def table(session: Torture) -> str:
    """Return one line per kind of trial."""
    kinds = dict.fromkeys(kind for kind, _ in session.counts)
    numbers = {kind: (session.counts[kind, "survived"], session.counts[kind, "lost"]) for kind in kinds}
    return "\n".join(f"{k:14}  tried {s + n:4}  survived {s:4}  lost {n:4}" for k, (s, n) in numbers.items())


def main() -> int:
    """Run every kind of trial; print one line per kind."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="one trial of every kind but the pipeline")
    parser.add_argument("--minutes", type=float, help="no trial starts that would end later; default 30, or 3 if quick")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help=", ".join(KINDS))
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder, served(judge_reply) as judge:
        until = began + 60 * (options.minutes or (3 if options.quick else 30))
        session = Torture(Path(folder), stages(judge), until, random.Random(options.seed))
        try:
            torture(session, set(options.kinds), options.quick)
        finally:
            print(", ".join(f"{name} {seconds:.1f} s" for name, seconds in session.seconds.items()))
            print(f"{table(session)}\n{time.monotonic() - began:.0f} s", flush=True)
    return int(any(outcome == "lost" and n for (_, outcome), n in session.counts.items()))


if __name__ == "__main__":
    sys.exit(main())
