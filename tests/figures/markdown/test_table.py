"""Markdown tables are rectangular, and a page changes between its markers only."""

from pathlib import Path

import pytest

from figures.markdown.table import renew, table

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_bar_in_a_cell_ends_no_column():
    assert table(["a", "b"], [["x|y", "1"]]) == "| a | b |\n| --- | ---: |\n| x\\|y | 1 |"
    assert table(["a", "b", "c"], [], numbers=slice(1, 2)).split("\n")[1] == "| --- | ---: | --- |"


def test_a_page_changes_between_the_markers_only_and_once(tmp_path):
    page = write(tmp_path / "README.md", f"# Title\n{BEGIN}\nold\n{END}\nrest\n")
    for _ in range(2):
        assert renew([page], {"results": "| a |"}) == [page]
        assert page.read_text() == f"# Title\n{BEGIN}\n| a |\n{END}\nrest\n"


@pytest.mark.parametrize("text", ["nothing", "{0}", "{1}", "{1} {0}", "{0} {0} {1}"])
def test_pages_without_proper_markers_are_left_alone(tmp_path, text):
    page = write(tmp_path / "README.md", text.format(BEGIN, END))
    good = write(tmp_path / "good.md", "<!-- other:begin -->\n<!-- other:end -->\n")
    pages = [page] if text == "nothing" else [good, page]
    with pytest.raises(ValueError, match=r"README\.md"):
        renew(pages, {"other": "| b |", "results": "| a |"})
    assert page.read_text() == text.format(BEGIN, END)
    assert "| b |" not in good.read_text()


def test_a_table_goes_to_the_page_that_has_its_markers(tmp_path):
    first = write(tmp_path / "first.md", f"{BEGIN}\n{END}\n")
    second = write(tmp_path / "second.md", "<!-- other:begin -->\n<!-- other:end -->\n")
    plain = write(tmp_path / "plain.md", "no table\n<!-- unknown:begin -->\n")
    write(tmp_path / "notes.txt", BEGIN)
    assert renew([tmp_path], {"results": "| a |", "other": "| b |", "unused": "| c |"}) == [first, second]
    assert first.read_text() == f"{BEGIN}\n| a |\n{END}\n"
    assert second.read_text() == "<!-- other:begin -->\n| b |\n<!-- other:end -->\n"
    assert plain.read_text() == "no table\n<!-- unknown:begin -->\n"
