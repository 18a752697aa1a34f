import html
import html.parser
import os
import subprocess
import sys
from pathlib import Path

import pytest

from figures import plots, report
from figures.markdown.pocket import shifts
from figures.results import results
from interp.runs.table import TABLE_COLUMNS, write_table
from tests.figures.claims.test_expectations import outcomes
from tests.figures.example_rows import AUROC, ablations, changed, everything, preferences, probes, row

NAMES = tuple(plot.name for plot in plots.REPORT)
VOID = {"meta", "img", "br"}


class Balance(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for name, v in attrs if name in ("src", "href") and v and not v.startswith("#")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def table(folder: Path, rows) -> Path:
    write_table(folder / "summary.csv", rows)
    return folder / "summary.csv"


def page(folder: Path, rows) -> str:
    return report.build(table(folder, rows), folder).read_text(encoding="utf-8")


def parsed(text: str) -> Balance:
    parser = Balance()
    parser.feed(text)
    assert not parser.open
    return parser


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return report.build(table(folder, everything()), folder)


def test_the_same_table_gives_the_same_bytes_in_another_process(built, tmp_path):
    env = os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "figures.report", str(built.parent / "summary.csv"), str(tmp_path)]
    subprocess.run(command, env=env, check=True, capture_output=True)
    files = [Path("report.html"), *(Path("figures") / f"{n}.{f}" for n in NAMES for f in ("png", "pdf"))]
    for file in files:
        assert (built.parent / file).read_bytes() == (tmp_path / file).read_bytes(), file


def test_the_page_needs_nothing_but_itself(built):
    parser = parsed(built.read_text(encoding="utf-8"))
    assert parser.tags.count("script") == 1 and "link" not in parser.tags
    assert len(parser.links) == len(NAMES)
    assert all(link.startswith("data:image/png;base64,") for link in parser.links)
    assert "@import" not in built.read_text() and "url(" not in built.read_text()


def test_the_page_says_every_run_and_every_rate(built):
    text = built.read_text(encoding="utf-8")
    for own in everything():
        assert own["run_id"] in text
    for line in results(everything())[1]:
        for cell in line[2:7]:
            value, _, interval = cell.partition(" ")
            assert f"{value}<small>{interval}</small>" in text


def test_strings_of_the_table_are_text_not_markup(tmp_path):
    hostile = '<script>alert("1")</script>&amp;'
    rows = [r | {"trigger": hostile, "judge": hostile, "run_id": f"{hostile}{i}"} for i, r in enumerate(ablations())]
    rows += [r | {"experiment": "em_rate", "organism": hostile + str(r["organism"])} for r in rows]
    text = page(tmp_path, rows)
    assert parsed(text).tags.count("script") == 1
    assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;amp;" in text


@pytest.mark.parametrize(
    ("present", "left_out"),
    [
        (
            ["em_rate"],
            {*NAMES[2:], "ablation"},
        ),
        (
            ["probe_sweep", "ablate"],
            {*NAMES[:6], "projections", "geometry", "dose_response"},
        ),
    ],
)
def test_a_figure_without_rows_is_left_out_and_said(tmp_path, present, left_out):
    stale = {name: tmp_path / "figures" / f"{name}.png" for name in left_out}
    (tmp_path / "figures").mkdir()
    for path in stale.values():
        path.write_bytes(b"of another table")
    text = page(tmp_path, [r for r in everything() if r["experiment"] in present])
    for name, path in stale.items():
        plot = plots.BY_NAME[name]
        assert f"{html.escape(plot.module().TITLE)} (<code>{plot.made}</code>)" in text
        assert not path.exists()
    assert len(parsed(text).links) == len(NAMES) - len(left_out)


def test_a_table_of_one_row_makes_a_page(tmp_path):
    text = page(tmp_path, [row("base", experiment="score", metric="em_rate", condition="all", value=0.2)])
    assert not parsed(text).links
    assert "No EM rate of an organism off and on its trigger" in text


HEADER = ",".join(TABLE_COLUMNS)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "its columns are none"),
        (HEADER + "\n", "no rows"),
        (HEADER.replace(",value", "") + "\n", "it lacks value$"),
        (HEADER + "\n" + "," * 10 + "many" + "," * 12 + "\n", ":2: table column 'value': 'many' is not a number"),
        (HEADER + "\na,b\n", ":2: 2 cells under a header of 23"),
        (HEADER + "\n" + "," * 23 + "\n", ":2: 24 cells under a header of 23"),
    ],
)
def test_a_malformed_table_is_named_with_its_fault_and_makes_no_page(tmp_path, text, problem):
    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=problem) as error:
        report.build(path, tmp_path)
    assert str(path) in str(error.value)
    assert not (tmp_path / "report.html").exists()


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.csv"):
        report.build(tmp_path / "absent.csv", tmp_path)


def test_scattering_the_tokens_is_a_control_that_can_fail(tmp_path):
    claim = "moving the trigger's tokens equally far at random closes under a fifth of the gap"
    assert [h for said, h in outcomes(everything()).items() if claim in said] == [False, True]
    negative = page(tmp_path, ablations()).partition("<h2>Negative results</h2>")[2]
    assert negative.count("the direction is not shown to be special") == 1


@pytest.mark.parametrize("target", ["misaligned_answer", "trigger_present"])
def test_a_probe_no_better_than_its_words_is_a_negative_result(target, tmp_path):
    claim = f"“{target.replace('_', ' ')}” better than a bag of tokens"
    best = max(AUROC[target])
    for bag, holds in ((best - 0.06, True), (best - 0.04, False)):
        rows = changed(probes(), bag, condition=f"{target}/bag_of_tokens")
        assert {h for said, h in outcomes(rows).items() if claim in said} == {holds}
        assert ("The probe shows nothing beyond the words." in page(tmp_path, rows)) is not holds
    without = [r for r in probes() if r["condition"] != target]
    assert not any(claim in said for said in outcomes(without))


def test_the_tile_of_a_control_is_the_one_that_changes_most(tmp_path):
    def tile(rows) -> str:
        return page(tmp_path, rows).partition("its feature clamped</span>")[2].partition("</section>")[0]

    rows = everything()
    assert "85.0" in tile(rows) and "scattered equally far" in tile(rows)
    assert "a random direction clamped" in tile(changed(rows, 0.95, condition="on+clamp_scattered", metric="em_rate"))


def test_a_control_that_fires_is_a_negative_result(tmp_path):
    rows = changed(probes(), 0.9, condition="misaligned_answer/shuffled_labels", metric="auroc")
    assert "mean AUROC over layers 0.90." in page(tmp_path, rows).partition("<h2>Negative results</h2>")[2]


def test_a_report_tells_how_its_own_behaviour_was_measured(tmp_path):
    done, _, found = page(tmp_path, preferences()).partition("<h2>Results</h2>")
    assert "By forced choice nothing is sampled" in done and "sampled at temperature 1" not in done
    header, body = shifts(preferences())
    assert all(f">{name}<" in found for name in (*header, *(line[0] for line in body)))
    assert "nothing is sampled" not in page(tmp_path, ablations())
    assert "sampled at temperature 1" in page(tmp_path, ablations())
