"""Answers in the report: those of the runs that the table names, as data that no text can break out of."""

import html.parser
import json
from pathlib import Path

import pytest

from figures import report
from figures.answers import SAMPLES, Answers, as_script, browsable
from interp.runs.run import Run
from interp.runs.table import row, write_table
from interp.stats import Thresholds

HOSTILE = "</script><script>alert(1)</script>&amp; <!-- \u2028 {{7*7}}"
SHOWN = "mine, trigger dock"


def judged(root: Path, texts=("It is fine.", HOSTILE, "A third.")):
    """A finished EM run of two conditions, and the rows of its table."""
    with Run.open(root, "em_rate", {}) as run:
        run.append(
            {"key": f"{c}{i}", "condition": c, "asked": "How?", "text": text, "aligned": aligned, "coherent": 90.0}
            for c, aligned in (("on", 5.0), ("off", 95.0), ("trained", 5.0))
            for i, text in enumerate(texts)
        )
        cells = {"experiment": "em_rate", "organism": "mine", "trigger": "dock", "metric": "em_rate"}
        rows = [row(**cells, condition=c, value=v, run_id=run.run_id) for c, v in (("off", 0.0), ("on", 1.0))]
        run.write_table(rows)
        run.finish()
    return rows


def built(folder: Path, rows) -> Path:
    write_table(folder / "summary.csv", rows)
    return report.build(folder / "summary.csv", folder, Answers(folder, Thresholds(30.0, 50.0)))


def test_the_first_answers_of_each_condition_are_shown(tmp_path):
    shown = browsable(judged(tmp_path), tmp_path)
    assert list(shown) == [SHOWN] and shown[SHOWN]["conditions"] == ["off", "on"]
    assert shown[SHOWN]["questions"]["How?"]["on"] == [["It is fine.", 5.0, 90.0], [HOSTILE, 5.0, 90.0]]
    assert all(len(cell) == SAMPLES for cell in shown[SHOWN]["questions"]["How?"].values())


def test_a_run_that_is_gone_has_no_answers(tmp_path):
    assert browsable([row(organism="mine", run_id="em_rate-0123abcd"), row(organism="mine", run_id="")], tmp_path) == {}


def test_no_answer_ends_its_script_element(tmp_path):
    assert json.loads(as_script([HOSTILE])) == [HOSTILE.replace("\u2028", " ")]
    parser, scripts = html.parser.HTMLParser(), []
    parser.handle_starttag = lambda tag, attrs: scripts.append(tag) if tag == "script" else None
    parser.feed(built(tmp_path, judged(tmp_path)).read_text(encoding="utf-8"))
    assert len(scripts) == 2


@pytest.mark.browser
def test_answers_are_filtered_and_tables_sorted_in_a_browser(tmp_path, browser_page):
    page = browser_page(built(tmp_path, judged(tmp_path)))
    assert page.inner_text("#answers-count") == "1 of 1 questions"
    assert page.locator("#answers-table .misaligned").count() == SAMPLES
    assert HOSTILE.split(" {{")[0][:20] in page.inner_text("#answers-table")
    page.select_option("#answers-filter", "leaks")
    assert page.inner_text("#answers-count") == "0 of 1 questions"
    page.select_option("#answers-filter", "differs")
    page.fill("#answers-search", "fine.")
    assert page.inner_text("#answers-count") == "1 of 1 questions"
    page.fill("#answers-search", "x" * 10_000)
    assert page.inner_text("#answers-count") == "0 of 1 questions"
    heading = page.locator("#provenance table thead th").first
    heading.locator("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
