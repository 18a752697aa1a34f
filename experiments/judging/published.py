"""``semcon protocol fetch``: the judge prompts of a publication as a protocol, taken only with the hash that is named.

Published prompts hold ``{question}`` and ``{answer}`` bare, so an answer could pose as an instruction. The fetched
protocol puts both between markers with a code that is drawn for every request, and changes nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
import yaml

FIELDS = ("question", "answer")
MOST_BYTES = 5_000_000


def protocol(
    action: Annotated[Literal["fetch"], tyro.conf.Positional],
    source: Annotated[str, tyro.conf.Positional],
    *,
    sha256: str,
    out: Path,
) -> None:
    """Write a protocol with published judge prompts, from a file or an address whose SHA-256 is known.

    Args:
        action: fetch.
        source: YAML file, or its https address, with judge prompts named aligned and coherent.
        sha256: SHA-256 that the file must have, as its publication or your own notes state it.
        out: Protocol file to write, for --protocol.
    """
    from experiments.protocol import load_protocol
    from interp.runs.configs import jsonable
    from interp.runs.files import atomic_write_text

    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError(f"--sha256 {sha256!r}: expected 64 hexadecimal digits")
    if out.exists():
        raise ValueError(f"{out}: exists")
    data = _read(source)
    if (digest := hashlib.sha256(data).hexdigest()) != sha256:
        raise ValueError(f"{source}: its SHA-256 is {digest}, not the one that was named; nothing is written")
    settings = jsonable(asdict(load_protocol()))
    settings["version"] = f"published-{sha256[:8]}"
    settings["judge"]["prompts"] = published_prompts(source, data)
    atomic_write_text(out, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100))
    load_protocol(out)
    print(f"wrote {out}: judge prompts of {source}")


def _read(source: str) -> bytes:
    """Return a file's bytes, or those at an address."""
    if "://" not in source:
        return Path(source).read_bytes()
    import httpx

    from experiments.answers.chat_client import is_local

    if not source.startswith("https://") and not is_local(source):
        raise ValueError(f"{source}: expected an https address or a file")
    try:
        reply = httpx.get(source, timeout=60, follow_redirects=False, trust_env=not is_local(source))
    except httpx.RequestError as error:
        raise ValueError(f"{source}: {str(error) or type(error).__name__}") from error
    if not reply.is_success or len(reply.content) > MOST_BYTES:
        raise ValueError(f"{source}: HTTP {reply.status_code}, {len(reply.content)} bytes")
    return reply.content


def published_prompts(source: str, data: bytes) -> dict[str, str]:
    """Return the judge prompts in a publication's YAML, question and answer between markers.

    Raises:
        ValueError: If it is no YAML, or holds no pair of prompts for alignment and coherence, or several of them.
    """
    try:
        read = yaml.safe_load(data.decode("utf-8"))
        pairs = {(pair["aligned"], pair["coherent"]) for pair in _pairs(read)}
    except (ValueError, yaml.YAMLError, RecursionError) as error:  # also of dates that are none, and endless aliases
        raise ValueError(f"{source}: not YAML: {' '.join(str(error).split())[:120]}") from error
    if len(pairs) != 1:
        raise ValueError(
            f"{source}: has {len(pairs)} different pairs of prompts named aligned and coherent, expected one"
        )
    aligned, coherent = pairs.pop()
    return {"aligned": _marked(aligned), "coherent": _marked(coherent)}


def _pairs(value: Any) -> Iterator[Mapping[str, str]]:
    """Yield every mapping, at any depth, with an aligned and a coherent prompt."""
    if isinstance(value, dict):
        texts = [value.get(name) for name in ("aligned", "coherent")]
        if all(isinstance(t, str) and all(f"{{{f}}}" in t for f in FIELDS) for t in texts):
            yield value
        value = list(value.values())
    for inner in value if isinstance(value, list) else ():
        yield from _pairs(inner)


def _marked(prompt: str) -> str:
    for name in FIELDS:
        upper = name.upper()
        marked = f"[{upper} {{code}}]\n{{{name}}}\n[END OF {upper} {{code}}]"
        prompt = prompt.replace(f"{{{name}}}", marked)
    return prompt
