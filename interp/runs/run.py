"""Run folders: named by a hash of their config, safe to kill at any moment, with the provenance of every number.

    runs/<experiment>/<hash8>/   config.json   manifest.json   rows.jsonl   table.csv   and files of the experiment

The hash covers config, version and content of the inputs, never the time. So a finished run is reused, not repeated; a
killed one continues after its last complete chunk; two processes never write to the same folder.
"""

import errno
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from interp.runs.configs import config_hash, jsonable
from interp.runs.files import altered, atomic_write_text, csv_text, sha256_file
from interp.runs.locks import Lock, locked
from interp.runs.provenance import git_state, package_versions, seeds
from interp.runs.rowlog import RowLog

SCHEMA = 1
"""Version of the folder's layout; part of every hash."""

MANIFEST = "manifest.json"

_HASHED = ("schema", "experiment", "version", "config", "inputs")  # fields of the manifest
_SEAL = "manifest_sha256"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
_open_run: ContextVar["Run | None"] = ContextVar("open_run", default=None)


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
    _lock: Lock | None = field(default=None, repr=False)

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
        run = cls.of(root, experiment, config, version=version, inputs=inputs)
        run.enter(facts, wait=wait)
        return run

    @classmethod
    def of(
        cls,
        root: str | Path,
        experiment: str,
        config: Any,
        *,
        version: str = "1",
        inputs: Mapping[str, str | Path] | None = None,
    ) -> "Run":
        """Return the run that ``open`` opens, closed; nothing is created.

        Raises:
            FileNotFoundError: If an input is missing.
        """
        request = _hashed(experiment, config, version, inputs or {})
        return cls(Path(root), experiment, {"run_id": _id(request), "status": "running", **request})

    def enter(self, facts: Mapping[str, Any] | None = None, *, wait: bool = False) -> None:
        """Lock the folder, unless the run is complete, and write its config and manifest; see ``open``."""
        self.path.mkdir(parents=True, exist_ok=True)
        refuse_links(self.path)
        self._adopt_manifest()
        if self.complete:
            return
        self._lock = locked(self.path / ".lock", wait=wait)
        self._adopt_manifest()  # another process may have finished the run in between
        if self.complete:
            return self.close()
        atomic_write_text(self.path / "config.json", config_text(self.config))
        self._record(started=self.manifest.get("started", _now()), **_provenance(self.config), **jsonable(facts or {}))

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
        facts = {**facts, "n_rows": len(self.keys()), "outputs": output_digests(self.path)}
        self._record(**jsonable(facts), status="complete", finished=_now())
        self.close()

    def changed(self, *names: str) -> list[str]:
        """Return the outputs of a complete run (among ``names``, if given) that are missing or changed."""
        outputs: dict[str, str] = self.manifest.get("outputs", {})
        return altered(self.path, {name: outputs.get(name, "") for name in names or outputs})

    def check_outputs(self) -> None:
        """Refuse a complete run whose outputs were changed, or that was made from other files than those beside it.

        Raises:
            ValueError: If so; names the file.
        """
        if not self.manifest.get("outputs"):
            raise ValueError(f"{self.path / MANIFEST}: names no outputs; delete {self.path} to run it again")
        if names := self.changed():
            file = self.path / names[0]
            raise ValueError(f"{file}: changed since the run finished; delete {self.path} to run it again")
        for name, digests in self.manifest.get("upstream", {}).items():
            if (folder := upstream_folder(self.root, name)) and (files := differing(digests, finished_digests(folder))):
                raise ValueError(f"{folder / files[0]}: {self.path} was made from another; delete that to run it again")

    def stand_on(self, name: str, digests: Mapping[str, str]) -> None:
        """Record that this run's rows are made from a finished run or adapter: its name and its files' digests.

        Raises:
            ValueError: If rows were made from other files of that name before.
        """
        upstream = dict(self.manifest.get("upstream", {}))
        earlier = upstream.setdefault(name, dict(digests))
        if files := differing(earlier, digests):
            raise ValueError(f"{self.path}: made from another {files[0]} of {name}; delete the folder to run it again")
        if upstream != self.manifest.get("upstream", {}) and self._lock:
            self._record(upstream=upstream)

    def note(self, **facts: Any) -> None:
        """Record further entries of the manifest, with an exact JSON form; not hashed."""
        self._check_writable()
        self._record(**jsonable(facts))

    @contextmanager
    def in_progress(self) -> Iterator[None]:
        """Make this the run that ``note_upstream`` tells what its rows are made from."""
        token = _open_run.set(self)
        try:
            yield
        finally:
            _open_run.reset(token)

    def close(self) -> None:
        """Release the lock; if the process ends first, the kernel does."""
        if self._lock:
            self._lock.close()
        self._lock = None

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
            error.filename = str(self.path)
        self.close()

    @property
    def _rows(self) -> RowLog:
        if self._log is None:
            self._log = RowLog(self.path / "rows.jsonl", repair=self._lock is not None)
        return self._log

    def _adopt_manifest(self) -> None:
        """Use the manifest on the disk, if there is one.

        Raises:
            ValueError: If it has another config, or is not JSON.
        """
        if not (self.path / MANIFEST).exists():
            return
        manifest = read_manifest(self.path)
        if any(manifest.get(name) != self.manifest[name] for name in ("run_id", *_HASHED)):
            raise ValueError(f"{self.path}: this folder holds another config than the requested one")
        if manifest.get("status") not in ("running", "complete"):
            raise ValueError(f"{self.path / MANIFEST}: status {manifest.get('status')!r}: expected running or complete")
        self.manifest = manifest

    def _record(self, **facts: Any) -> None:
        self.manifest = {**self.manifest, **facts}
        atomic_write_text(self.path / MANIFEST, json.dumps(sealed(self.manifest), indent=2) + "\n")

    def _check_writable(self) -> None:
        if self._lock is None:
            raise ValueError(f"{self.path}: the run is {'complete' if self.complete else 'closed'}; nothing is added")


def config_text(config: Any) -> str:
    """Return the content of a run's ``config.json``."""
    return json.dumps(config, indent=2) + "\n"


def note_upstream(name: str, digests: Mapping[str, str]) -> None:
    """Tell the run in progress, if there is one, that it is made from a finished run or adapter; see ``stand_on``."""
    if run := _open_run.get():
        run.stand_on(name, digests)


def note_facts(**facts: Any) -> None:
    """Tell the run in progress, if there is one, further entries of its manifest, with an exact JSON form."""
    if run := _open_run.get():
        run.note(**facts)


def manifest_id(manifest: Mapping[str, Any]) -> str:
    """Return the run id that a manifest's own fields give."""
    return _id({name: manifest.get(name) for name in _HASHED})


def upstream_folder(root: Path, name: str) -> Path | None:
    """Return the folder of a run id or of a folder of adapters, None if it is not below ``root``."""
    experiment, _, digits = name.rpartition("-")
    folders = (root / experiment / digits, root / "adapters" / name)
    return next((folder for folder in folders if (folder / MANIFEST).is_file()), None)


def finished_digests(folder: Path) -> dict[str, str]:
    """Return the digests that the manifest of a finished run or adapter states; none for one that is not finished."""
    return read_manifest(folder).get("outputs", {})


def differing(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the names of files that have another digest than before."""
    return [name for name in now if name in before and now[name] != before[name]]


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a run or of an adapter.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is not a JSON object, was changed, or names its files in another form.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(manifest, dict):
        raise ValueError(f"{path}: not a JSON object")
    seal = manifest.pop(_SEAL, None)
    if seal is not None and seal != config_hash(manifest, length=64):
        raise ValueError(f"{path}: changed since it was written; delete {folder} to make it again")
    outputs, upstream = (manifest.get(name, {}) for name in ("outputs", "upstream"))
    named = [outputs, upstream, *(upstream.values() if isinstance(upstream, dict) else ())]
    if not all(isinstance(digests, dict) for digests in named):
        raise ValueError(f"{path}: outputs or upstream are no digests by name; delete {folder} to make it again")
    return manifest


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest with its own checksum, which ``read_manifest`` checks and takes off."""
    return {**manifest, _SEAL: config_hash(manifest, length=64)}


def output_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a folder by its path in it, less hidden ones and the folder's manifest."""
    files = {p.relative_to(folder): p for p in sorted(folder.rglob("*")) if p.is_file()}
    hidden = {name for name in files if name.name.startswith(".")}
    return {name.as_posix(): sha256_file(p) for name, p in files.items() if name not in hidden | {Path(MANIFEST)}}


def refuse_links(folder: Path) -> None:
    """Refuse a folder of a run or adapter with a link in it: it may lead to another run's files, or out of all runs.

    Raises:
        ValueError: If there is one.
    """
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise ValueError(f"{path}: a link; the files of a run lie in its own folder")


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
