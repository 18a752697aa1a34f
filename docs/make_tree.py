"""Make the page of the annotated tree from what every file says of itself.

    python docs/make_tree.py     # renews docs/tree.md

A Python file is described by the first paragraph of its docstring, any other by the first two sentences of its
first comment. Pages, data, weights and pictures are left out.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("interp", "training", "probes", "experiments", "figures")
OTHERS = ("benchmarks", "examples", "docs")
TOP = ("Makefile", "constraints.txt", "mkdocs.yml", ".ci/run")
HEADER = """# The tree

Every file with its purpose, as the file itself says it. Renewed by `python docs/make_tree.py`.
"""
TESTS = """
## tests

The tests mirror the packages: `tests/interp/test_edits.py` tests `interp/edits.py`. They are theorems and identities on
small models, made offline.
"""


def purpose(path: Path) -> str:
    """Return the first paragraph of a module's docstring, or two sentences of another file's first comment."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        said = ast.get_docstring(ast.parse(text)) or next(iter(re.findall(r"^# # (.+)", text, re.MULTILINE)), "")
    else:
        comment = re.search(r"^#+ .+(\n# \S.*)*", text, re.MULTILINE)
        lines = " ".join(line.lstrip("# ") for line in comment[0].splitlines()) if comment else ""
        said = " ".join(re.split(r"(?<=\.) ", lines)[:2])
    return " ".join(said.split("\n\n")[0].split()).replace("``", "`")


def files(folder: Path) -> Iterator[Path]:
    """Yield the code and settings of one folder, in alphabetical order."""
    for path in sorted(folder.iterdir()):
        if path.suffix in (".py", ".yaml") and path.name != "__init__.py":
            yield path


def folders(top: Path) -> Iterator[Path]:
    """Yield a folder and every folder below it that holds such files, parents first."""
    for path in (top, *sorted(p for p in top.rglob("*") if p.is_dir())):
        if path.name != "__pycache__" and any(files(path)):
            yield path


def section(folder: Path) -> str:
    """Return the heading of one folder, what it is for, and a line for each of its files."""
    name = folder.relative_to(ROOT).as_posix()
    package = folder / "__init__.py"
    lines = [f"\n{'##' if folder.parent == ROOT else '###'} {name}\n"]
    if package.exists():
        lines.append(f"{purpose(package)}\n")
    lines += ["| file | purpose |", "| --- | --- |"]
    lines += [_line(path) for path in files(folder)]
    return "\n".join(lines) + "\n"


def _line(path: Path) -> str:
    return f"| [`{path.name}`](../{path.relative_to(ROOT).as_posix()}) | {purpose(path).replace('|', chr(92) + '|')} |"


def tree() -> str:
    """Return the page."""
    shown = [section(folder) for name in (*PACKAGES, *OTHERS) for folder in folders(ROOT / name)]
    top = "\n".join(f"| [`{name}`](../{name}) | {purpose(ROOT / name)} |" for name in TOP)
    return f"{HEADER}{''.join(shown)}{TESTS}\n## Top level\n\n| file | purpose |\n| --- | --- |\n{top}\n"


if __name__ == "__main__":
    (ROOT / "docs" / "tree.md").write_text(tree(), encoding="utf-8")
