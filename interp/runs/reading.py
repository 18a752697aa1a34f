"""One door for the files that a user writes: YAML, JSON lines and CSV become checked values.

A file is read whole. If anything in it is wrong, one line names the file and all its faults, each with its field and,
in JSON lines and CSV, its line.
"""

import csv
import gzip
import io
import json
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import yaml
from annotated_types import MaxLen, MinLen
from pydantic import AfterValidator, ValidationError

from interp.runs.checks import adapter, faults_of

MOST_FAULTS = 8
"""Faults of one file that are printed; the others are counted."""
DEEPEST = 100
"""Levels of a YAML file."""
_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
"""libyaml's, which alone reads ``{id: Why?}``; the other where it is not installed."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NOT_CSV = (UnicodeDecodeError, csv.Error, EOFError, gzip.BadGzipFile, zlib.error)


_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff"
    "\uffa0\U000e0000-\U000e0fff]"
)
"""Characters that nobody sees: joiners, soft hyphens, marks of direction, selectors of a variant."""
_QUOTES = "\"'`“”„‟‘’‚‛«»‹› "


def readable(text: str) -> str:
    """Return a text that is not blank and has no control characters but tabs and line breaks.

    Raises:
        ValueError: If it is another text.
    """
    if not _INVISIBLE.sub("", text).strip():
        raise ValueError("expected a text that is not blank")
    if control := _CONTROL.search(text):
        raise ValueError(f"has the control character {control[0]!r}")
    return text


def _plain_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w .,:'+()-]*", name):
        raise ValueError("expected a name of letters, digits, spaces and _ . , : ' + ( ) -")
    return name


Text = Annotated[str, MinLen(1), AfterValidator(readable)]
Name = Annotated[str, MinLen(1), MaxLen(200), AfterValidator(_plain_name)]
"""A name for tables and references: letters, digits, spaces and ``_ . , : ' + ( ) -``."""


def refuse(path: str | Path, faults: Iterable[str]) -> NoReturn:
    """Raise one error with all faults of a file, which may start with a line number (``:12: ...``).

    Raises:
        ValueError: Always.
    """
    every = list(faults)
    more = f" (and {len(every) - MOST_FAULTS} more)" if len(every) > MOST_FAULTS else ""
    shown = "; ".join(f"{path}{fault}" if fault.startswith(":") else fault for fault in every[:MOST_FAULTS])
    raise ValueError((shown if shown.startswith(f"{path}:") else f"{path}: {shown}") + more)


def read_text(path: str | Path) -> str:
    """Return the text of a file in UTF-8, without a byte order mark.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not UTF-8, or empty.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        refuse(path, [f"not a text in UTF-8 ({error.reason} at byte {error.start})"])
    if not text.strip():
        refuse(path, ["it is empty"])
    return text


def read_yaml(path: str | Path, kind: Any, form: str = "") -> Any:
    """Read a YAML file as a value of a type: no unknown fields, no conversions.

    Plain scalars have the types of YAML 1.2 (``no`` and ``2024-01-01`` are texts); aliases and tags are not read.

    Args:
        path: The file.
        kind: A dataclass, a ``TypedDict`` or any other type that pydantic validates.
        form: What the file looks like, for the message of a refusal.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not YAML, or anything in it is not of the type; names the file and every field.
    """
    text = read_text(path)
    try:
        value = _plain(_composed(text))
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}: " if error.problem_mark else ""
        refuse(path, [f"{line}not a YAML file: {error.problem}"])
    except (yaml.YAMLError, ValueError) as error:
        refuse(path, [f"not a YAML file: {' '.join(str(error).split())}"])
    checked, faults = validated(kind, value)
    if faults or checked is None:
        refuse(path, [*(faults or ["it is empty"]), *([f"its form is {form}"] if form else [])])
    return checked


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not UTF-8 or JSON, a key stands twice in an object, or it holds anything else.
    """
    value, faults = json_value(read_text(path), dict[str, Any])
    if faults:
        refuse(path, faults)
    return value


def read_jsonl(path: str | Path, kind: Any) -> list[tuple[str, Any]]:
    """Read JSON lines as values of a type, each with its ``file:line``; blank lines are skipped.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not UTF-8 or empty, or a line is not of the type; names every line and field.
    """
    lines = json_lines(path, kind)
    if faults := [f":{number}: {fault}" for number, _, wrong in lines for fault in wrong]:
        refuse(path, faults)
    return [(f"{path}:{number}", value) for number, value, _ in lines]


def json_lines(path: str | Path, kind: Any) -> list[tuple[int, Any, list[str]]]:
    """Return number, value and faults of every line of a file of JSON lines; blank lines are skipped.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not UTF-8 or empty.
    """
    lines = enumerate(read_text(path).split("\n"), start=1)  # not splitlines: U+2028 may stand in a text
    return [(number, *json_value(line, kind)) for number, line in lines if line.strip()]


def json_value(line: str, kind: Any) -> tuple[Any, list[str]]:
    """Return a JSON text as a value of a type, and what is wrong with it."""
    try:
        value = json.loads(line, object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        message = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        return None, [f"not JSON: {message}"]
    return validated(kind, value)


def read_columns(path: str | Path, columns: Sequence[str], kind: str) -> list[tuple[str, dict[str, str]]]:
    """Return the rows of a CSV that has exactly these columns; see ``read_csv``.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not a CSV in UTF-8, or has other columns.
    """
    found, rows = read_csv(path)
    if found != tuple(columns):
        refuse(path, [f"not a {kind}; its columns are {', '.join(found) or 'none'}"])
    return rows


def read_csv(path: str | Path) -> tuple[tuple[str, ...], list[tuple[str, dict[str, str]]]]:
    """Return the columns of a CSV, gzipped or not, and its rows, each with its ``file:line``.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not a CSV in UTF-8, a column stands twice, or a row has other cells than the header.
    """
    try:
        data = Path(path).read_bytes()
        text = (gzip.decompress(data) if Path(path).suffix == ".gz" else data).decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        columns = tuple(next(reader, ()))
        rows = [(reader.line_num, cells) for cells in reader if cells]
    except _NOT_CSV as error:
        refuse(path, [f"not a CSV in UTF-8 ({error})"])
    faults = [f"column {name!r} stands twice" for name in sorted({c for c in columns if columns.count(c) > 1})]
    faults += [
        f":{line}: {len(cells)} cells under a header of {len(columns)}"
        for line, cells in rows
        if len(cells) != len(columns)
    ]
    if faults:
        refuse(path, faults)
    return columns, [(f"{path}:{line}", dict(zip(columns, cells, strict=True))) for line, cells in rows]


def validated(kind: Any, value: Any, *place: str) -> tuple[Any, list[str]]:
    """Return plain data as a value of a type, and what is wrong with it, each fault after its ``place``."""
    try:
        text = json.dumps(value, ensure_ascii=False).encode()
        return adapter(kind).validate_json(text, strict=True, extra="forbid"), []
    except UnicodeEncodeError as error:
        before = error.object[max(0, error.start - 20) : error.start]
        return None, [f"half of a surrogate pair, which is no text, after {before!r}"]
    except ValidationError as error:
        return None, faults_of(error, *place)


def normalised(text: str) -> str:
    """Return what two texts share that are one text to a reader.

    That is without case, spacing, Unicode form, invisible characters, quotation marks around it, and last stops.
    """
    visible = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    folded = " ".join(visible.casefold().split())
    return re.sub(r"(?<=\w)[ .,;:!?…]+$", "", folded.strip(_QUOTES) or folded)


def repeats(texts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield one fault per text that repeats an earlier one up to case, spacing and last stops; each has a place."""
    places: dict[str, str] = {}
    for place, text in texts:
        first = places.setdefault(normalised(text), place)
        if first != place:
            yield f"{place} {text!r:.60}: the same text as {first}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} appears twice")
    return dict(pairs)


def _finite(text: str) -> float:
    number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if number - number != 0:
        raise ValueError(f"{text[:30]} is not a finite number")
    return number


_SCALARS = [
    (re.compile(r"~|null|Null|NULL|"), lambda _: None),
    (re.compile(r"true|True|TRUE|false|False|FALSE"), lambda text: text.lower() == "true"),
    (re.compile(r"[-+]?(0|[1-9][0-9]*)"), int),
    (
        re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|nan)", re.IGNORECASE),
        _finite,
    ),
]
"""The plain scalars of YAML 1.2 that are no texts."""


def _composed(text: str) -> yaml.Node:
    """Return the tree of a YAML text: no deeper than ``DEEPEST``, and without aliases, which can be endless or huge."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem=f"alias *{event.anchor} is not read", problem_mark=event.start_mark)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=event.start_mark)
    return yaml.compose(text, Loader=_LOADER) or yaml.ScalarNode("tag:yaml.org,2002:str", "")


def _plain(node: yaml.Node) -> Any:
    """Return the value of a YAML node; a number as a key is read as its text."""
    if node.tag.removeprefix("tag:yaml.org,2002:") not in ("str", "seq", "map"):
        raise yaml.MarkedYAMLError(problem=f"tag {node.tag!r} is not read", problem_mark=node.start_mark)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        try:
            return _unique([(_key(_plain(key)), _plain(item)) for key, item in node.value])
        except ValueError as error:
            raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from error
    assert isinstance(node, yaml.ScalarNode)
    makers = [make for pattern, make in _SCALARS if not node.style and pattern.fullmatch(node.value)]
    return makers[0](node.value) if makers else node.value


def _key(value: Any) -> str:
    if type(value) not in (str, int):
        raise ValueError(f"key {value!r:.60}: expected a text (quote it)")
    return str(value)
