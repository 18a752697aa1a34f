"""Try to make a reproduction lose something: python -m tests.torture [--quick] [--minutes N] [--seed N].

Every trial ends with the command run once more. It survives if that gives, byte for byte, the table of an uninterrupted
run, or refuses with one line and exit status 2 what it was given. Anything else is lost, and the exit status is 1.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from interp.runs.verify import faults, run_folders

ROOT = Path(__file__).parents[2]
TABLE = "summary.csv"


@dataclass
class Torture:
    """The trials of one session: where they run, until when, and what came of them."""

    folder: Path
    until: float
    kills: int
    chance: random.Random
    whole: Path = field(init=False)
    seconds: float = 0.0
    """How long an uninterrupted run takes."""
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def count(self, kind: str, survived: bool, note: str = "") -> None:
        """Record one trial."""
        self.counts[kind, "survived" if survived else "lost"] += 1
        if not survived:
            print(f"lost: {kind}: {note}", file=sys.stderr, flush=True)

    def left(self, share: float = 1.0) -> bool:
        """Tell whether there is time for another trial that takes this share of a run."""
        return time.monotonic() + share * self.seconds < self.until

    def ends_well(self, root: Path, workers: int = 2, damaged: bool = False) -> tuple[bool, str]:
        """Run to the end: the table is that of the uninterrupted run, and every file is as it was written.

        What was ``damaged`` may be refused in one line, or not be read at all.
        """
        status, output = finish(start(root, workers))
        message = refusal(output)
        if status == 2:
            return damaged and bool(message), message
        table = root / TABLE
        equal = status == 0 and table.exists() and table.read_bytes() == (self.whole / TABLE).read_bytes()
        whole = damaged or (equal and not [line for run in run_folders(root) for line in faults(run)])
        return equal and whole, f"status {status}: {output[-400:]}"

    # --- kinds ---

    def uninterrupted(self) -> None:
        """Run with one worker, then with two and four: all tables are the same."""
        began = time.monotonic()
        self.whole = self.folder / "1"
        status, output = finish(start(self.whole, 1))
        self.seconds = time.monotonic() - began
        if status or not (self.whole / TABLE).exists():
            raise SystemExit(f"torture: the uninterrupted run failed with status {status}: {output}")
        for workers in (2, 4):
            self.count("workers", *self.ends_well(self.folder / str(workers), workers))

    def killed(self) -> None:
        """Kill at random moments, again and again, until a run comes to its end."""
        root, tried, since = self.folder / "killed", 0, 0
        while tried < self.kills and self.left(1.5):
            process = start(root, self.chance.choice((1, 2, 4)))
            try:
                status: int | None = process.wait(self.chance.uniform(0, 1.1 * self.seconds))
            except subprocess.TimeoutExpired:
                status = None
                kill(process, self.chance.random() < 0.5)
                tried, since = tried + 1, since + 1
            if status is None and self.chance.random() > 0.1:
                continue
            survived, note = self.ends_well(root)
            for _ in range(since):
                self.count("kill -9", survived, note)
            since = 0
            shutil.rmtree(root)
        if since:
            survived, note = self.ends_well(root)
            for _ in range(since):
                self.count("kill -9", survived, note)

    def full_disk(self) -> None:
        """Run on a disk that is full at some moment, then on one with room."""
        size = sum(path.stat().st_blocks * 512 for path in self.whole.rglob("*"))
        with mounted(self.folder / "disk") as disk:
            while disk and self.left(2):
                remount(disk, f"size={int(self.chance.uniform(0.02, 0.9) * size)}")
                status, output = finish(start(disk / "runs", 2))
                line = refusal(output)
                named = status == 0 or (status == 2 and str(disk) in line)
                remount(disk, f"size={20 * size}")
                survived, note = self.ends_well(disk / "runs")
                self.count("full disk", named and survived, f"{line} / {note}")
                shutil.rmtree(disk / "runs", ignore_errors=True)
                if self.counts["full disk", "survived"] >= max(1, self.kills // 20):
                    return

    def read_only(self) -> None:
        """Run in a folder that cannot be written."""
        with mounted(self.folder / "fixed") as disk:
            if disk and self.left():
                remount(disk, "ro")
                status, output = finish(start(disk / "runs", 1))
                self.count("read-only", status == 2 and str(disk) in refusal(output), output[-400:])

    def two_writers(self) -> None:
        """Run the same command twice at once."""
        root = self.folder / "both"
        for process in [start(root, 2) for _ in range(2)]:
            status, output = finish(process)
            if status not in (0, 2) or (status == 2 and not refusal(output)):
                self.count("two writers", False, output[-400:])
        survived, note = self.ends_well(root)
        self.count("two writers", survived, note)

    def flipped(self, n: int) -> None:
        """Flip one bit of a file, of a finished root or of one in which a run is not finished."""
        for _ in range(n):
            if not self.left():
                return
            root = self.folder / "flipped"
            shutil.copytree(self.whole, root)
            (root / TABLE).unlink()
            if self.chance.random() < 0.5:
                self._reopen(root)
            files = [
                p for p in root.rglob("*") if p.is_file() and p.stat().st_size and p.suffix not in (".svg", ".html")
            ]
            path = self.chance.choice(sorted(files))
            data, at = bytearray(path.read_bytes()), self.chance.randrange(path.stat().st_size)
            data[at] ^= 1 << self.chance.randrange(8)
            path.write_bytes(data)
            survived, note = self.ends_well(root, damaged=True)
            self.count("flipped bit", survived, f"{path.relative_to(root)} at {at}: {note}")
            shutil.rmtree(root)

    def _reopen(self, root: Path) -> None:
        """Make one run unfinished, as if it had been killed after its last row."""
        manifest = self.chance.choice(sorted(root.glob("*/*/rows.jsonl"))).with_name("manifest.json")
        text = manifest.read_text()
        manifest.write_text(text.replace('"status": "complete"', '"status": "running"'))
        (manifest.parent / "table.csv").unlink()


def refusal(output: str) -> str:
    """Return the line that a command refuses with; nothing if it refuses with more than one line."""
    lines = [line for line in output.splitlines() if line.startswith("semcon reproduce: ")]
    return lines[0] if len(lines) == 1 and "Traceback" not in output else ""


def start(root: Path, workers: int) -> subprocess.Popen[str]:
    """Start the command in a process group of its own."""
    command = [sys.executable, "-m", "tests.torture.command", str(root), str(workers)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the command; return its exit status and what it wrote to the standard error."""
    output = process.communicate()[1]
    return process.returncode, output


def kill(process: subprocess.Popen[str], group: bool) -> None:
    """Kill the command and, if ``group``, its workers; wait until all of them are gone."""
    (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
    process.communicate()  # ends with the last worker


@contextmanager
def mounted(folder: Path) -> Iterator[Path | None]:
    """Mount a small disk in memory; None where that is not allowed."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    try:
        yield None if done.returncode else folder
    finally:
        if not done.returncode:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(disk: Path, option: str) -> None:
    """Change the size of a disk in memory, or make it read-only."""
    subprocess.run(["mount", "-o", f"remount,{option}", str(disk)], check=True)


def main() -> int:
    """Run every kind of trial; print one line per kind."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few trials of every kind, about two minutes")
    parser.add_argument("--minutes", type=float, default=30, help="no trial starts that would end later")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        kills = 3 if options.quick else 120
        until = time.monotonic() + 60 * options.minutes
        torture = Torture(Path(folder), until, kills, random.Random(options.seed))
        torture.uninterrupted()
        torture.flipped(1 if options.quick else 20)
        torture.two_writers()
        torture.read_only()
        torture.full_disk()
        torture.killed()
    for kind in dict.fromkeys(kind for kind, _ in torture.counts):
        survived, lost = torture.counts[kind, "survived"], torture.counts[kind, "lost"]
        print(f"{kind:12}  tried {survived + lost:4}  survived {survived:4}  lost {lost:4}")
    return int(any(outcome == "lost" for _, outcome in torture.counts))


if __name__ == "__main__":
    sys.exit(main())
