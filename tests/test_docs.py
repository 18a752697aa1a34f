"""What the README and the pages say is true: links, commands, run ids, the example, the tree."""

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from experiments.__main__ import main
from experiments.registry import REGISTRY
from interp.runs.reading import read_csv

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.md")])
SPARE = {"coin"}
"""Commands of an invented experiment, in the recipe for a new one."""


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def table(text: str, name: str) -> list[str]:
    return text.split(f"<!-- {name}:begin -->\n")[1].split(f"<!-- {name}:end -->")[0].splitlines()


def published_runs() -> set[str]:
    tables = [read_csv(path)[1] for path in (ROOT / "figures" / "data").iterdir()]
    return {cells["run_id"] for table in tables for _, cells in table if "run_id" in cells}


def test_the_readme_is_short():
    assert text_of(README).count("\n") <= 200
    assert len(text_of(README).encode()) <= 16_000


def test_the_readme_s_example_has_one_import_and_runs():
    (code,) = re.findall(r"^```python\n(.*?)^```", text_of(README), flags=re.MULTILINE | re.DOTALL)
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert len(imports) == 1
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_code_of_the_library_s_page_runs():
    blocks = re.findall(r"^```python\n(.*?)^```", text_of(ROOT / "docs" / "library.md"), flags=re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_runs_named_in_the_readme_are_in_a_committed_table():
    named = set(re.findall(r"\b[a-z_]+-[0-9a-f]{8}\b", text_of(README)))
    assert named
    assert named - published_runs() == set()


def test_numbers_of_the_readme_s_findings_are_those_of_their_runs():
    prose = " ".join(text_of(README).split("## Six findings")[1].split("\n## ")[0].split())
    measured = {cells["run_id"]: set[str]() for _, cells in read_csv(ROOT / "figures" / "data" / "findings.csv")[1]}
    for _, cells in read_csv(ROOT / "figures" / "data" / "findings.csv")[1]:
        measured[cells["run_id"]] |= set(re.findall(r"(\d+\.\d+) \[", cells["worst"]))
    named = re.findall(r"`([a-z_]+-[0-9a-f]{8})`", prose)
    assert len(named) > 10
    assert [
        run for run in named if not any(re.search(rf"(?<![\d.]){re.escape(n)}", prose) for n in measured[run])
    ] == []


def test_rows_of_the_readme_are_rows_of_the_headline():
    front, headline = table(text_of(README), "front"), table(text_of(ROOT / "docs" / "results.md"), "headline")
    assert len(front) == 5
    assert [line for line in front if line not in headline] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path):
    targets = re.findall(r"\]\((?!https?:)([^)#\s]+)", text_of(page))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_exist(page: Path):
    named = set(re.findall(r"\bsemcon ([a-z][a-z-]+)", text_of(page)))
    assert named - set(REGISTRY) - SPARE == set()


@pytest.mark.parametrize("page", [README, ROOT / "docs" / "real-models.md"], ids=lambda page: page.name)
def test_the_commands_of_your_own_model_are_accepted_word_for_word(page: Path, tmp_path: Path, monkeypatch, capsys):
    blocks = re.findall(r"^```bash\n(.*?)^```", text_of(page), flags=re.MULTILINE | re.DOTALL)
    for block in (block for block in blocks if block.startswith("semcon init ")):
        monkeypatch.chdir(tmp_path)
        for line in block.splitlines():
            words = shlex.split(line, comments=True)[1:]
            checked = [*words, "--check"] if words[0] == "em-rate" and "--check" not in words else words
            if words[0] in ("init", "em-rate"):
                assert main(checked) == 0, capsys.readouterr().err


def test_every_command_is_named_in_a_page():
    text = "\n".join(map(text_of, PAGES))
    assert [name for name in REGISTRY if f"semcon {name}" not in text] == []


def test_the_tree_is_what_the_files_say_of_themselves():
    spec = importlib.util.spec_from_file_location("make_tree", ROOT / "docs" / "make_tree.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert text_of(ROOT / "docs" / "tree.md") == module.tree(), "run `python docs/make_tree.py`"


def test_the_citation_file_has_what_its_format_requires():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None and citation["version"] == version[1]
