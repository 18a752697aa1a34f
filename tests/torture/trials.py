"""The kinds of trial. Each ends with the command run once more, which has to give the files of an undisturbed run."""

import hashlib
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from interp.runs.run import MANIFEST
from interp.runs.verify import faults, run_folders
from interp.store import read_store, verify
from tests.torture.forks import Child, fork, mounted, remount
from tests.torture.stages import Stage

UNCOMPARED = (MANIFEST, "verdicts.jsonl", "prompts.jsonl")
"""Files with times in them, one whose lines stand in the order in which replies came, and what a trial is given."""
MADE_AGAIN = (".svg", ".html", ".png", ".pdf")


@dataclass
class Torture:
    """The trials of one session: where they run, until when, and what came of them."""

    folder: Path
    finished: Path
    """Where the undisturbed runs are."""
    stages: Sequence[Stage]
    until: float
    chance: random.Random
    most_kills: int
    """How often one run is killed, at most."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long an undisturbed run of each stage takes."""
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    # --- one command ---

    def start(self, stage: Stage, root: Path, largest: int | None = None) -> Child:
        """Start a stage in a fork."""
        number = len(list(self.folder.glob("*.log")))
        return fork(self.folder / f"{number}.log", stage.main, stage.words(root), largest)

    def whole(self, index: int) -> Path:
        """Return the folder after an undisturbed run of the stages up to this one."""
        return self.finished / f"whole-{index}"

    def given(self, index: int, root: Path) -> Path:
        """Make what a stage starts from."""
        if index:
            shutil.copytree(self.whole(index - 1), root, dirs_exist_ok=True)
        self.stages[index].prepare(root)
        return root

    def ends_well(self, index: int, root: Path, damaged: Path | None = None) -> tuple[bool, str]:
        """Run a stage to its end: the files are those of the undisturbed run, and no run or adapter has a fault.

        If a file is ``damaged``, the command may refuse in one line; else no table but that file may differ.
        """
        status, output = self.start(self.stages[index], root).finish()
        note = f"status {status}: {output[-600:]}"
        if status == 2:
            return damaged is not None and bool(refusal(output)), note
        want, got = products(self.whole(index)), products(root)
        differing = sorted(name for name in want | got if want.get(name) != got.get(name))
        differing += [
            p.name
            for p in self.whole(index).rglob("*.h5")
            if not damaged and not same_activations(p, root / p.relative_to(self.whole(index)))
        ]
        if damaged:
            differing = [name for name in differing if name.endswith(".csv") and root / name != damaged]
        broken = [] if damaged else flaws(root)
        return not (status or differing or broken), f"{note}; differing: {differing[:5]}; faults: {broken[:3]}"

    def count(self, kind: str, survived: bool, note: str = "", n: int = 1) -> None:
        """Record trials."""
        self.counts[kind, "survived" if survived else "lost"] += n
        if not survived and n:
            print(f"lost: {kind}: {note}", file=sys.stderr, flush=True)

    def tried(self, kind: str) -> int:
        """Return the number of trials of a kind."""
        return self.counts[kind, "survived"] + self.counts[kind, "lost"]

    def left(self, seconds: float) -> bool:
        """Tell whether there is so much time."""
        return time.monotonic() + seconds < self.until

    # --- kinds ---

    def undisturbed(self) -> None:
        """Run every stage once, without trouble."""
        for index, stage in enumerate(self.stages):
            root = self.given(index, self.whole(index))
            began = time.monotonic()
            status, output = self.start(stage, root).finish()
            self.seconds[stage.name] = time.monotonic() - began
            print(f"{stage.name} {self.seconds[stage.name]:.1f} s undisturbed", file=sys.stderr, flush=True)
            if status:
                raise SystemExit(f"torture: the undisturbed {stage.name} failed with status {status}: {output}")

    def killed(self, index: int) -> None:
        """Kill a stage at random moments on its way, then let it come to its end."""
        stage, seconds = self.stages[index], self.seconds[self.stages[index].name]
        if not self.left((2 + self.most_kills) * seconds):
            return
        root, kills = self.given(index, self.folder / "killed"), 0
        for _ in range(self.chance.randint((self.most_kills + 1) // 2, self.most_kills)):
            child = self.start(stage, root)
            if child.ended(self.chance.uniform(0, 0.9 * seconds)):
                break
            child.kill()
            kills += 1
        survived, note = self.ends_well(index, root)
        self.count(f"kill {stage.name}", survived, note, n=max(kills, int(not survived)))
        shutil.rmtree(root)

    def full_disk(self, index: int) -> None:
        """Run a stage on a disk that is full at some moment, then on one with room."""
        size, before = (used(self.whole(i)) if i >= 0 else 0 for i in (index, index - 1))
        with mounted(self.folder / "disk") as disk:
            if disk and self.left(4 * self.seconds[self.stages[index].name]):
                remount(disk, f"size={20 * size}")
                root = self.given(index, disk / "runs")
                remount(disk, f"size={int(used(root) + self.chance.uniform(0, 1) * (size - before))}")
                refused, line = self._refused(self.start(self.stages[index], root), root)
                remount(disk, f"size={20 * size}")
                survived, note = self.ends_well(index, root)
                self.count("full disk", refused and survived, f"{self.stages[index].name}: {line} / {note}")
        (self.folder / "disk").rmdir()

    def short_files(self, index: int) -> None:
        """Run a stage where no file can grow beyond some size, then without the limit."""
        if not self.left(4 * self.seconds[self.stages[index].name]):
            return
        largest = max(p.stat().st_size for p in self.whole(index).rglob("*") if p.is_file())
        root = self.given(index, self.folder / "short")
        limit = int(4096 * (largest / 4096) ** self.chance.random())
        refused, line = self._refused(self.start(self.stages[index], root, limit), root)
        survived, note = self.ends_well(index, root)
        self.count("file limit", refused and survived, f"{self.stages[index].name} at {limit}: {line} / {note}")
        shutil.rmtree(root)

    def _refused(self, child: Child, root: Path) -> tuple[bool, str]:
        """Tell whether a command ended, or refused in one line that names a file below ``root``."""
        status, output = child.finish()
        return status == 0 or (status == 2 and str(root) in refusal(output)), f"status {status}: {output[-600:]}"

    def read_only(self, index: int) -> None:
        """Run a stage in a folder that cannot be written."""
        with mounted(self.folder / "disk") as disk:
            if disk and self.left(2 * self.seconds[self.stages[index].name]):
                remount(disk, f"size={20 * used(self.whole(index))}")
                root = self.given(index, disk / "runs")
                remount(disk, "ro")
                child = self.start(self.stages[index], root)
                refused, note = self._refused(child, root)
                self.count("read-only", refused and child.process.exitcode == 2, f"{self.stages[index].name}: {note}")
        (self.folder / "disk").rmdir()

    def two_writers(self, index: int) -> None:
        """Run a stage twice at once."""
        if not self.left(4 * self.seconds[self.stages[index].name]):
            return
        root = self.given(index, self.folder / "both")
        first = self.start(self.stages[index], root)
        first.ended(self.chance.uniform(0, 0.5 * self.seconds[self.stages[index].name]))
        second = self.start(self.stages[index], root)
        for child in (first, second):
            status, output = child.finish()
            if status and not (status == 2 and refusal(output)):
                self.count("two writers", False, f"{self.stages[index].name}: status {status}: {output[-600:]}")
        survived, note = self.ends_well(index, root)
        self.count("two writers", survived, f"{self.stages[index].name}: {note}")
        shutil.rmtree(root)

    def flipped(self, index: int) -> None:
        """Flip one bit of a finished stage's files: verify names the file, and no other table comes of it."""
        if not self.left(2 * self.seconds[self.stages[index].name]):
            return
        root = self.folder / "flipped"
        shutil.copytree(self.whole(index), root)
        path = self._any_file(root)
        data, at = bytearray(path.read_bytes()), self.chance.randrange(path.stat().st_size)
        data[at] ^= 1 << self.chance.randrange(8)
        path.write_bytes(data)
        where = f"{path.relative_to(root)} at {at}"
        if covered(path, root):
            self.count("bit verified", any(line.startswith(str(path)) for line in flaws(root)), where)
        survived, note = self.ends_well(index, root, damaged=path)
        self.count("flipped bit", survived, f"{where}: {note}")
        shutil.rmtree(root)

    def linked(self, index: int) -> None:
        """Put a link in the place of a file of a run: refused or not read, and never written through."""
        root, elsewhere = self.folder / "linked", self.folder / "elsewhere"
        shutil.copytree(self.whole(index), root)
        path = self._any_file(root)
        shutil.move(path, elsewhere)
        content = elsewhere.read_bytes()
        path.symlink_to(elsewhere)
        survived, note = self.ends_well(index, root, damaged=path)
        untouched = elsewhere.read_bytes() == content
        self.count("link", survived and untouched, f"{path.relative_to(root)}, untouched {untouched}: {note}")
        shutil.rmtree(root)
        elsewhere.unlink()

    def _any_file(self, root: Path) -> Path:
        files = [p for p in root.rglob("*") if p.is_file() and p.stat().st_size and p.suffix not in MADE_AGAIN]
        return self.chance.choice(sorted(p for p in files if covered(p, root)) or sorted(files))


def refusal(output: str) -> str:
    """Return the line that a command refuses with; nothing if there is a traceback or more than one line."""
    lines = [line for line in output.splitlines() if line.startswith(("semcon ", "python -m interp "))]
    return lines[0] if len(lines) == 1 and "Traceback" not in output else ""


def products(root: Path) -> dict[str, str]:
    """Return the digests of all files that two runs have to share, by their path in the folder."""
    files = [p for p in root.rglob("*") if p.is_file() and p.name not in UNCOMPARED]
    visible = [p for p in files if not p.name.startswith(".") and p.suffix != ".h5"]
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in visible}


def same_activations(one: Path, other: Path) -> bool:
    """Tell whether two stores hold the same, up to the rounding of other batches, and are as they were written."""
    if not other.is_file() or verify(other):
        return False
    with read_store(one) as a, read_store(other) as b:
        if a.prompt_hashes != b.prompt_hashes or (a.sites, a.positions) != (b.sites, b.positions):
            return False
        places = [(site, position) for site in a.sites for position in a.positions]
        return all(torch.allclose(a.read(*at).float(), b.read(*at).float(), atol=1e-4) for at in places)


def flaws(root: Path) -> list[str]:
    """Return what ``semcon verify`` says of all runs and adapters."""
    if not list(root.rglob(MANIFEST)):
        return []
    return [line for run in run_folders(root) for line in faults(run)]


def covered(path: Path, root: Path) -> bool:
    """Tell whether a file belongs to a run or an adapter."""
    return any((parent / MANIFEST).is_file() for parent in path.parents if parent.is_relative_to(root))


def used(root: Path) -> int:
    """Return the bytes that a folder takes on the disk."""
    return sum(path.stat().st_blocks * 512 for path in root.rglob("*"))
