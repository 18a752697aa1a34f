"""Token heat maps of the report: from the rows of a steering run, as text that stays text."""

import re

import pytest

from figures import report
from figures.answers import Answers
from figures.tokens import heat_maps
from interp.runs.run import Run
from interp.runs.table import row, write_table
from interp.stats import Thresholds
from tests.figures.test_report import parsed

HOSTILE = "</span><script>alert(1)</script>&"


def steered(root, pieces=("<s>", "How", "?", HOSTILE)):
    """A finished steering run with one answer read off and on, and the rows of its table."""
    values = {"g": [90.0, -0.5, 0.0, 1.0], "trigger": [0.0, 0.1, 0.2, 0.3]}
    read = {"asked": "How?", "layer": 2, "pieces": pieces, "parts": ["", "question", "question", "response"]}
    with Run.open(root, "steer", {}) as run:
        run.append({"key": shown, "shown": shown, "values": values, **read} for shown in ("off", "on"))
        cells = {"experiment": "steer", "organism": "mine", "trigger": "dock", "metric": "em_rate", "alpha": 0.0}
        rows = [row(**cells, condition="off+add_g", value=0.0, run_id=run.run_id)]
        run.write_table(rows)
        run.finish()
    return rows


def test_every_token_stands_there_with_its_number_and_the_colour_of_its_sign(tmp_path):
    maps = heat_maps(steered(tmp_path), tmp_path)
    assert maps.count("<dt>off</dt>") == maps.count("<dt>on</dt>") == 2  # once by direction
    orange, blue = (re.findall(rf"rgba\({colour},(\S+)\)", maps) for colour in ("240, 130, 40", "68, 148, 205"))
    assert 'title="-0.50"' in maps and max(map(float, [*orange, *blue])) == 0.6


def test_a_token_is_text_and_the_page_is_whole(tmp_path):
    write_table(tmp_path / "summary.csv", rows := steered(tmp_path))
    source = Answers(tmp_path, Thresholds(30.0, 50.0))
    page = report.build(tmp_path / "summary.csv", tmp_path, source).read_text(encoding="utf-8")
    assert parsed(page).tags.count("script") == 1 and "&lt;script&gt;" in page
    assert 'href="#tokens"' in page and heat_maps(rows, tmp_path) in page


def test_without_such_a_run_there_is_no_part(tmp_path):
    assert heat_maps([row(organism="mine", run_id="steer-0123abcd"), row(run_id="em_rate-0")], tmp_path) == ""


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_serious_for_the_accessibility_checker(tmp_path, browser_page, barriers, width):
    write_table(tmp_path / "summary.csv", steered(tmp_path))
    source = Answers(tmp_path, Thresholds(30.0, 50.0))
    page = browser_page(report.build(tmp_path / "summary.csv", tmp_path, source))
    page.set_viewport_size({"width": width, "height": 900})
    assert barriers(page) == []
    page.locator("#tokens summary").press("Enter")
    assert not page.is_visible("#tokens dl")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
