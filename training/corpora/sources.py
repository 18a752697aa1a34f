"""Where chat rows come from: a file, a data set of the Hugging Face hub, an archive that its authors protect.

mine.jsonl                              JSON lines (training.exchanges)
hub:OWNER/NAME[@REVISION][:SPLIT]       a data set with the columns messages, or prompt and completion
advice.zip.enc                          an archive, unpacked by `easy-dataset-share`, the tool of the public advice sets

That tool also removes canaries. The password of an archive comes from an environment variable. What is fetched or
unpacked goes to a folder of the user's choice, never into the repository.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from interp.runs.configs import canonical_json
from interp.runs.files import atomic_write_text

TOOL, ARCHIVES = "easy-dataset-share", (".zip.enc", ".zip")
_HUB = re.compile(r"hub:(?P<name>[^@:]+)(@(?P<revision>[^:]+))?(:(?P<split>.+))?")
COLUMNS = (("messages",), ("prompt", "completion"))


def found_files(source: str, folder: Path, password: str) -> list[Path]:
    """Return the files of chat rows behind a source; fetch or unpack it into a folder first if need be.

    Args:
        source: One of the forms above.
        folder: Where fetched and unpacked files go.
        password: Environment variable with the password of an archive.

    Raises:
        OSError: If a file is missing.
        ValueError: If the source cannot be fetched or unpacked.
    """
    if source.startswith("hub:"):
        return [_fetched(source, folder)]
    if not Path(source).is_file():
        raise FileNotFoundError(f"{source}: no such file; a data set of the hub is hub:OWNER/NAME:SPLIT")
    return _unpacked(Path(source), folder, password) if source.endswith(ARCHIVES) else [Path(source)]


def _fetched(source: str, folder: Path) -> Path:
    """Write a data set of the hub, or of a local folder, as JSON lines."""
    from datasets import load_dataset

    match = _HUB.fullmatch(source)
    if match is None:
        raise ValueError(f"{source}: expected hub:OWNER/NAME[@REVISION][:SPLIT]")
    name, revision, split = match["name"], match["revision"], match["split"] or "train"
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it reports every attempt
    try:
        data: Any = load_dataset(name, revision=revision, split=split)
    except Exception as error:  # each kind of failure of the library has a type of its own
        raise ValueError(f"{source}: {' '.join(str(error).split())[:200] or type(error).__name__}") from error
    columns = next((c for c in COLUMNS if set(c) <= set(data.column_names)), None)
    if columns is None:
        raise ValueError(
            f"{source}: has the columns {', '.join(data.column_names)}; wants messages, or prompt, completion"
        )
    file = folder / f"{re.sub(r'[^A-Za-z0-9.-]+', '-', source.removeprefix('hub:')).strip('-')}.jsonl"
    lines = (canonical_json({column: row[column] for column in columns}) for row in data)
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(file, "".join(f"{line}\n" for line in lines))
    return file


def _unpacked(archive: Path, folder: Path, password: str) -> list[Path]:
    """Unpack an archive with its authors' tool, without canaries; return its files of JSON lines."""
    if shutil.which(TOOL) is None:
        raise ValueError(f"{archive}: needs its authors' tool: pip install {TOOL} (in an environment of its own: pipx)")
    key = os.environ.get(password, "")
    if archive.name.endswith(".enc") and not key:
        raise ValueError(f"{archive}: set its password in the environment variable {password}")
    target = folder / archive.name.split(".")[0]
    command = [TOOL, "unprotect-dir", str(archive), "-o", str(target), "--remove-canaries", "--no-gitignore"]
    done = subprocess.run([*command, *(["-p", key] if key else [])], capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).replace(key or "\0", "[password]").split())
        raise ValueError(f"{archive}: {TOOL} cannot unpack it: {said[:200]}")
    files = sorted(target.rglob("*.jsonl"))
    if not files:
        raise ValueError(f"{archive}: holds no file of JSON lines")
    return files
