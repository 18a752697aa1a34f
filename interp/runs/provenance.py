"""Provenance of a number: the commit, the package versions, the seeds."""

import functools
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    *("torch", "transformers", "peft", "trl", "tokenizers", "safetensors", "numpy", "scipy", "scikit-learn", "h5py"),
    *("transformer-lens", "nnsight", "semantic-containment"),
)
"""Packages whose version can change a number."""


@functools.cache
def git_state() -> dict[str, Any] | None:
    """Return ``{"sha", "dirty"}`` of the git checkout that this package runs from, or None if there is none."""
    root = Path(__file__).resolve().parents[2]
    try:
        top, sha = _git(root, "rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(top).resolve() != root:  # installed inside the checkout of another project
            return None
        return {"sha": sha, "dirty": bool(_git(root, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout


def package_versions() -> dict[str, str]:
    """Return the installed versions of ``PACKAGES`` without importing them."""
    return {name: version for name in PACKAGES if (version := _version(name))}


@functools.cache
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def seeds(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return every field of a JSON config named ``seed``, ``seeds`` or ``*_seed(s)``, by dotted path."""
    values: dict[str, Any] = {}
    for key, value in config.items() if isinstance(config, Mapping) else ():
        if isinstance(value, Mapping):
            values |= seeds(value, f"{prefix}{key}.")
        elif f"_{key}".endswith(("_seed", "_seeds")):
            values[prefix + key] = value
    return values
