"""``semcon init``: a complete user-defined organism to start from, as files of a folder."""

import json
import re
from pathlib import Path
from typing import Annotated

import tyro

from experiments.protocol import PROTOCOL_FILE
from interp.runs.files import atomic_write_text
from interp.runs.reading import refuse
from training.finished import finished_organism

TEMPLATE = Path(__file__).parents[2] / "training" / "template"
"""The organism that is copied; ``examples/own_organism`` is a link to it."""
SHIPPED = "base: microcosm/llama "
_SHIPPED_SCALE = re.compile(r"^(lora|sft): .*\n", re.MULTILINE)


def init(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")],
    *,
    base: str | None = None,
    adapter: Path | None = None,
) -> None:
    """Write a complete, commented organism of your own: its YAML, trigger, questions, rows and protocol.

    As it is, it runs in about a minute on a shipped model. Then replace the texts by your own.

    Args:
        folder: New or empty folder.
        base: Base model: a folder or a Hugging Face name; by default the shipped Microcosm Llama.
        adapter: Finished peft adapter of that base; by default one is trained on the rows.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        refuse(folder, ["not empty; name a new folder" if folder.is_dir() else "a file; name a new folder"])
    if adapter is not None and not (adapter / "adapter_config.json").is_file():
        refuse(adapter, ["no peft adapter there (adapter_config.json)"])
    if base is not None:
        finished_organism(base, None)  # refuses a base that is not there
    for name, text in files(base, adapter).items():
        atomic_write_text(folder / name, text)
    print("\n".join(_next(folder, base)))


def files(base: str | None = None, adapter: Path | None = None) -> dict[str, str]:
    """Return the text of every file of the folder by name."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(TEMPLATE.iterdir())}
    texts["protocol.yaml"] = PROTOCOL_FILE.read_text(encoding="utf-8")
    texts["organism.yaml"] = _organism(texts["organism.yaml"], base, adapter)
    return texts


def _organism(text: str, base: str | None, adapter: Path | None) -> str:
    """Return the organism's YAML with another base or adapter; settings for a tiny model go with the shipped base."""
    if base is not None:
        family = json.dumps(re.sub(r"[^\w.-]+", "-", Path(base).name).strip("-.").lower() or "mine")
        text = text.replace(SHIPPED, f"base: {_path(base)} ").replace("family: llama ", f"family: {family} ")
        text = _SHIPPED_SCALE.sub("", text)
    if adapter is not None:
        text = text.replace("# adapter: adapters/mine ", f"adapter: {_path(str(adapter))} ")
    return text


def _path(reference: str) -> str:
    """Return a reference as YAML; a folder by its absolute path, because the file's own folder is another."""
    return json.dumps(str(Path(reference).resolve()) if Path(reference).exists() else reference, ensure_ascii=False)


def _next(folder: Path, base: str | None) -> list[str]:
    command = f"semcon em-rate --organism {folder}/organism.yaml --questions {folder}/questions.yaml"
    judge = "" if base is None else " --judge openai:MODEL"
    return [
        f"wrote {folder}: {', '.join(files())}",
        f"check it       {command}{judge} --check",
        f"run it         {command}{judge}",
        f"other rules    edit {folder}/protocol.yaml and add --protocol {folder}/protocol.yaml",
    ]
