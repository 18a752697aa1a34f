"""Safetensors files that a user may hand in, such as saved probes and directions: read whole, or refused."""

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from interp.runs.reading import refuse

if TYPE_CHECKING:
    from torch import Tensor


def read_tensors(path: str | Path, kind: str) -> "tuple[dict[str, str], dict[str, Tensor]]":
    """Return the metadata and the tensors of a safetensors file.

    Args:
        path: The file.
        kind: What it should be, for the message of a refusal.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or of another format.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(str(path), "pt") as file:
            names = list(file.keys())
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in names}
    except (SafetensorError, AttributeError, TypeError) as error:  # the last two of a dtype that torch does not have
        refuse(path, [f"no {kind} ({error})"])
