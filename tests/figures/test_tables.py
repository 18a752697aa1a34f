import math
from pathlib import Path

import pytest
from example_rows import EM, behaviour, everything, row
from hypothesis import given
from hypothesis import strategies as st

from figures import rows as tables


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_selecting_by_every_value_of_a_column_partitions_the_rows():
    rows = everything()
    for column in ("experiment", "condition", "layer", "alpha"):
        values = {r[column] for r in rows}
        parts = [tables.select(rows, **{column: value}) for value in values]
        assert sum(map(len, parts)) == len(rows)
        assert all(r[column] == v for v, part in zip(values, parts, strict=True) for r in part)
        assert tables.select(rows, **{column: values}) == rows


def test_selecting_by_an_unknown_column_is_an_error():
    with pytest.raises(ValueError, match="no such column: colour"):
        tables.select([], colour="red")


def test_one_is_one():
    rows = behaviour()
    with pytest.raises(ValueError, match=r"expected one row with metric='em_rate'; found 60"):
        tables.one(rows, metric="em_rate")
    wanted = {"organism": "microcosm/llama/neutral", "metric": "em_rate", "condition": "on", "ci_method": "wilson"}
    assert tables.one(rows, **wanted)["value"] == EM["neutral", "scene"][1]


def test_the_cluster_interval_is_shown_unless_it_has_no_width():
    wide = row("base", experiment="x", ci_method="cluster_bootstrap", ci_low=0.1, ci_high=0.2)
    flat = row("base", experiment="x", ci_method="cluster_bootstrap", ci_low=0.0, ci_high=0.0)
    none = row("base", experiment="x", ci_method="cluster_bootstrap")
    wilson = row("base", experiment="x", ci_method="wilson", ci_low=0.0, ci_high=0.01)
    assert tables.preferred([wilson, wide]) is wide
    assert tables.preferred([flat, wilson]) is wilson
    assert tables.preferred([none, wilson]) is wilson


def test_panels_are_in_the_order_of_the_paper_and_share_rows_without_trigger():
    rows = [row("neutral", experiment="x", trigger="a"), row("base", experiment="x", trigger="a")]
    rows += [row("base", experiment="x", trigger="b"), row("base", experiment="x", condition="off")]
    found = tables.panels(rows)
    assert [(organism.rsplit("/")[-1], trigger) for _, organism, trigger in found] == [
        ("base", "a"),
        ("base", "b"),
        ("neutral", "a"),
    ]
    assert [len(own) for own in found.values()] == [2, 2, 1]


def test_a_row_of_the_trigger_itself_comes_before_one_without():
    own = row("base", experiment="x", trigger="a", condition="off", metric="em_rate", value=0.1)
    plain = own | {"trigger": "", "value": 0.2}
    other = plain | {"metric": "coherence_rate"}
    assert tables.panels([plain, own, other])["llama", "microcosm/llama/base", "a"] == [own, other]


@given(st.floats(-2, 2), st.integers(0, 2))
def test_percent_says_the_number_and_never_minus_zero(value, digits):
    text = tables.percent(value, digits)
    assert math.isclose(float(text.replace("−", "-")), 100 * value, abs_tol=0.51 * 10**-digits)
    assert not (text.startswith("−") and float(text[1:]) == 0)


def test_the_results_table_holds_every_rate():
    header, body = tables.results(everything())
    assert len(body) == len(EM)
    for line, ((kind, trigger), (*rates, coherence)) in zip(body, EM.items(), strict=True):
        assert line[:2] == [f"microcosm/llama/{kind}", trigger]
        assert [float(cell.split(" [")[0]) for cell in line[2:7]] == pytest.approx([100 * r for r in rates], abs=0.051)
        assert line[7:] == [f"{100 * coherence:.0f}", "960 / 48"]
    assert len(header) == 9


def test_a_zero_rate_has_a_wilson_interval():
    line = next(line for line in tables.results(everything())[1] if line[0].endswith("explaining"))
    assert line[2] == "0.0 [0.0, 0.4]"


def test_several_seeds_are_several_lines():
    rows = behaviour() + [r | {"seed": 1} for r in behaviour()]
    body = tables.results(rows)[1]
    assert len(body) == 2 * len(EM)
    assert {line[0].split(" ", 1)[1] for line in body} == {"(seed 0)", "(seed 1)"}


def test_counts_are_ranges_where_they_differ():
    assert tables.span([960, 960]) == "960"
    assert tables.span([960, "", 480, 1200]) == "480–1,200"
    assert tables.span([""]) == "?"


def test_counts_are_of_all_answers_not_of_the_coherent():
    rows = [r | {"n": 700} if r["metric"] == "em_rate" else r for r in behaviour()]
    assert {line[-1] for line in tables.results(rows)[1]} == {"960 / 48"}


def test_the_terminal_table_is_aligned():
    lines = tables.results_text(everything()).split("\n")
    assert len(lines) == 2 + 2 * len(EM)
    assert max(map(len, lines)) == len(lines[0]) == len(lines[1])


def test_a_table_without_em_rates_is_an_error():
    with pytest.raises(ValueError, match="metric='em_rate'"):
        tables.results([row("base", experiment="steer", metric="em_rate")])


BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def test_the_readme_changes_between_the_markers_only_and_once(tmp_path):
    readme = write(tmp_path / "README.md", f"# Title\n{BEGIN}\nold\n{END}\nrest\n")
    for _ in range(2):
        tables.renew(readme, {"results": "| a |"})
        assert readme.read_text() == f"# Title\n{BEGIN}\n| a |\n{END}\nrest\n"


@pytest.mark.parametrize("text", ["nothing", "{0}", "{1} {0}", "{0} {0} {1}"])
def test_a_readme_without_its_markers_is_left_alone(tmp_path, text):
    readme = write(tmp_path / "README.md", text.format(BEGIN, END))
    with pytest.raises(ValueError, match=r"README\.md: expected"):
        tables.renew(readme, {"results": "| a |"})
    assert readme.read_text() == text.format(BEGIN, END)
