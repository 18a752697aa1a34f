"""Run folders: named by a hash of their config, safe to kill at any moment, with the provenance of every number.

    runs/<experiment>/<hash8>/   config.json   manifest.json   rows.jsonl   table.csv   and files of the experiment

The hash covers config, version and content of the inputs, never the time. So a finished run is reused, not repeated; a
killed one continues after its last complete chunk; two processes never write to the same folder.
"""

import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from interp.runs.configs import config_hash, jsonable
from interp.runs.files import atomic_write_text, csv_text, locked, sha256_file
from interp.runs.provenance import git_state, package_versions, seeds
from interp.runs.rowlog import RowLog

SCHEMA = 1
"""Version of the folder's layout; part of every hash."""

_HASHED = ("schema", "experiment", "version", "config", "inputs")  # fields of the manifest


def runs_root() -> Path:
    """Return the folder of all runs: ``$SEMCON_RUNS``, or ``runs`` in the working directory."""
    return Path(os.environ.get("SEMCON_RUNS") or "runs")


@dataclass(eq=False)
class Run:
    """One run folder, locked while it is written. Use ``Run.open`` as a context manager; the exit releases the lock.

    A row is a JSON object with a unique string ``key``. The rows of one ``append`` are a chunk: after a crash, either
    all of them are in the file or none.
    """

    root: Path
    experiment: str
    manifest: dict[str, Any]
    _log: RowLog | None = field(default=None, repr=False)
    _lock: IO[bytes] | None = field(default=None, repr=False)

    @classmethod
    def open(
        cls,
        root: str | Path,
        experiment: str,
        config: Any,
        *,
        version: str = "1",
        inputs: Mapping[str, str | Path] | None = None,
        facts: Mapping[str, Any] | None = None,
        wait: bool = False,
    ) -> "Run":
        """Open the folder of a config: a new one, one to continue, or a complete one to read.

        Args:
            root: Folder of all runs.
            experiment: Name of the experiment; first part of the run id.
            config: A dataclass or a mapping with an exact JSON form; hashed.
            version: Version of the rows' meaning; hashed, so that a new version repeats every run.
            inputs: Files or folders that the rows depend on, by name; their content is hashed, their path is not.
            facts: Further entries of the manifest, with an exact JSON form; not hashed.
            wait: Wait while another process writes this run, then continue it or read it.

        Raises:
            ValueError: If another process is writing this run (without ``wait``), or its folder holds another config.
            FileNotFoundError: If an input is missing.
        """
        request = _hashed(experiment, config, version, inputs or {})
        run = cls(Path(root), experiment, {"run_id": _id(request), "status": "running", **request})
        run._enter(facts or {}, wait)
        return run

    @property
    def run_id(self) -> str:
        """``<experiment>-<hash8>``."""
        return self.manifest["run_id"]

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.root / self.experiment / self.run_id.removeprefix(f"{self.experiment}-")

    @property
    def config(self) -> Any:
        """The config as plain JSON; ``restore(cls, run.config)`` rebuilds the dataclass."""
        return self.manifest["config"]

    @property
    def complete(self) -> bool:
        """Whether ``finish`` was called; a complete run accepts no more rows."""
        return self.manifest["status"] == "complete"

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of all complete chunks, in the order written."""
        return self._rows.rows()

    def keys(self) -> frozenset[str]:
        """Return the keys of the rows in the file, which a resumed run skips."""
        return self._rows.keys()

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append one chunk and return when it is on the disk. After a crash, all of ``rows`` are there or none.

        Raises:
            ValueError: If the run is complete or closed, or a row has no string ``key``, repeats one, or is not JSON.
        """
        self._check_writable()
        self._rows.append(rows)

    def write_table(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write ``table.csv``; the same rows give the same bytes."""
        self._check_writable()
        atomic_write_text(self.path / "table.csv", csv_text(rows))

    def finish(self, **facts: Any) -> None:
        """Record the digests of all outputs and ``facts``, mark the run complete and release the lock."""
        self._check_writable()
        files = sorted(p for p in self.path.rglob("*") if p.is_file() and not p.name.startswith("."))
        outputs = {p.relative_to(self.path).as_posix(): sha256_file(p) for p in files if p.name != "manifest.json"}
        n_rows = len(self.keys())
        self._record(**jsonable(facts), status="complete", finished=_now(), n_rows=n_rows, outputs=outputs)
        self.close()

    def changed(self, *names: str) -> list[str]:
        """Return the outputs of a complete run (among ``names``, if given) that are missing or changed."""
        outputs: dict[str, str] = self.manifest.get("outputs", {})
        paths = {name: self.path / name for name in names or outputs}
        return [n for n, path in paths.items() if not path.exists() or sha256_file(path) != outputs.get(n)]

    def close(self) -> None:
        """Release the lock; if the process ends first, the kernel does."""
        if self._lock:
            self._lock.close()
        self._lock = None

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _rows(self) -> RowLog:
        if self._log is None:
            self._log = RowLog(self.path / "rows.jsonl", repair=self._lock is not None)
        return self._log

    def _enter(self, facts: Mapping[str, Any], wait: bool) -> None:
        """Lock the folder, unless the run is complete, and write its config and manifest."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._adopt_manifest()
        if self.complete:
            return
        self._lock = locked(self.path / ".lock", wait=wait)
        self._adopt_manifest()  # another process may have finished the run in between
        if self.complete:
            return self.close()
        atomic_write_text(self.path / "config.json", json.dumps(self.config, indent=2) + "\n")
        self._record(started=self.manifest.get("started", _now()), **_provenance(self.config), **jsonable(facts))

    def _adopt_manifest(self) -> None:
        """Use the manifest on the disk, if there is one.

        Raises:
            ValueError: If it has another config, or is not JSON.
        """
        path = self.path / "manifest.json"
        if not path.exists():
            return
        try:
            manifest = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path}: not JSON ({error})") from error
        if any(manifest.get(name) != self.manifest[name] for name in _HASHED):
            raise ValueError(f"{self.path}: this folder holds another config than the requested one")
        self.manifest = manifest

    def _record(self, **facts: Any) -> None:
        self.manifest = {**self.manifest, **facts}
        atomic_write_text(self.path / "manifest.json", json.dumps(self.manifest, indent=2) + "\n")

    def _check_writable(self) -> None:
        if self._lock is None:
            raise ValueError(f"{self.path}: the run is {'complete' if self.complete else 'closed'}; nothing is added")


def run_id(experiment: str, config: Any, *, version: str = "1", inputs: Mapping[str, str | Path] | None = None) -> str:
    """Return the name that ``Run.open`` gives to a run of this config; nothing is created."""
    return _id(_hashed(experiment, config, version, inputs or {}))


def _hashed(experiment: str, config: Any, version: str, inputs: Mapping[str, str | Path]) -> dict[str, Any]:
    """Return what the hash covers; files count by their content, not by their path."""
    digests = {name: sha256_file(path) for name, path in inputs.items()}
    return dict(zip(_HASHED, (SCHEMA, experiment, version, jsonable(config), digests), strict=True))


def _id(hashed: Mapping[str, Any]) -> str:
    return f"{hashed['experiment']}-{config_hash(hashed)}"


def _provenance(config: Any) -> dict[str, Any]:
    return {
        "git": git_state(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": package_versions(),
        "seeds": seeds(config),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
