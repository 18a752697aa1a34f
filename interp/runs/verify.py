"""What is wrong with finished and unfinished runs and adapters on the disk, without running anything."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from interp.runs.files import altered
from interp.runs.rowlog import RowLog
from interp.runs.run import (
    MANIFEST,
    config_text,
    differing,
    finished_digests,
    manifest_id,
    read_manifest,
    refuse_links,
    upstream_folder,
)


def run_folders(root: Path) -> list[Path]:
    """Return the folders of runs and adapters at or below ``root``: those with a manifest, less those of one dose.

    Raises:
        ValueError: If there is none.
    """
    candidates = sorted(path.parent for path in root.rglob(MANIFEST))
    folders = [folder for folder in candidates if not (folder.parent / MANIFEST).is_file()]
    if not folders:
        raise ValueError(f"{root}: no run and no adapter there")
    return folders


def faults(folder: Path) -> Iterator[str]:
    """Yield what is wrong with one run or adapter, one line each: links, changed files, a broken log, another upstream.

    An unfinished run is no fault; its config and its logs are checked.
    """
    try:
        refuse_links(folder)
        manifest = read_manifest(folder)
        outputs = finished_digests(folder)
    except (OSError, ValueError) as error:
        yield str(error)
        return
    for name in altered(folder, outputs):
        yield f"{folder / name}: {'changed' if (folder / name).exists() else 'missing'} since it was finished"
    if "experiment" in manifest:
        yield from _run_faults(folder, manifest, outputs)


def _run_faults(folder: Path, manifest: Mapping[str, Any], outputs: Mapping[str, str]) -> Iterator[str]:
    if manifest.get("run_id") != manifest_id(manifest) or not manifest_id(manifest).endswith(f"-{folder.name}"):
        yield f"{folder / MANIFEST}: states another config than the one that the folder is named after"
    if manifest.get("status") == "complete" and not outputs:
        yield f"{folder / MANIFEST}: states no outputs"
    config = folder / "config.json"
    if not outputs and config.exists() and config.read_bytes() != config_text(manifest.get("config")).encode():
        yield f"{config}: changed since it was written"
    for log in sorted(folder.glob("*.jsonl")):
        try:
            RowLog(log)
        except (OSError, ValueError) as error:
            yield str(error)
    for name, digests in manifest.get("upstream", {}).items():
        try:
            upstream = upstream_folder(folder.parents[1], name)
            files = differing(digests, finished_digests(upstream)) if upstream else []
        except ValueError as error:
            yield str(error)
        else:
            yield from (f"{upstream}/{file}: {folder} was made from another" for file in files)
