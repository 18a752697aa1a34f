"""The one writer of Markdown tables, and the markers between which a page holds them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from interp.runs.files import atomic_write_bytes


def table(header: Sequence[str], body: Sequence[Sequence[str]], *, numbers: slice = slice(1, None)) -> str:
    """Lay out a Markdown table; the columns ``numbers`` are flush right."""
    right = range(len(header))[numbers]
    rule = ["---:" if i in right else "---" for i in range(len(header))]
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (header, rule, *body)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def renewed(page: Path, tables: Mapping[str, str]) -> tuple[str, list[str]]:
    """The text of a page with every table whose markers it holds renewed, and the names of those tables.

    A table ``name`` stands between ``<!-- name:begin -->`` and ``<!-- name:end -->``.

    Raises:
        ValueError: If the page holds one marker of a table, or both in the wrong order, or more than once.
    """
    text, names = page.read_text(encoding="utf-8"), []
    for name, content in tables.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if begin not in text and end not in text:
            continue
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
            raise ValueError(f"{page}: expected {begin} and then {end}, each once")
        head, rest = text.split(begin)
        text = f"{head}{begin}\n{content}\n{end}{rest.split(end)[1]}"
        names.append(name)
    return text, names


def renew(pages: Sequence[Path], tables: Mapping[str, str]) -> list[Path]:
    """Renew tables between their markers in Markdown files; all are read before any is written.

    Args:
        pages: Files, and folders of files (``*.md``).
        tables: Table text by name.

    Returns:
        The files that hold a table.

    Raises:
        ValueError: If no file holds a table, or a marker is missing, repeated or out of order.
    """
    files = [file for page in pages for file in (sorted(page.glob("*.md")) if page.is_dir() else [page])]
    texts = {file: text for file in files for text, names in [renewed(file, tables)] if names}
    if not texts:
        place, name = ", ".join(map(str, pages)), next(iter(tables))
        raise ValueError(f"{place}: no page holds <!-- {name}:begin --> or the marker of another table")
    for file, text in texts.items():
        atomic_write_bytes(file, text.encode())
    return list(texts)
