"""The results table holds every rate, for the report and for the terminal."""

import pytest

from figures.results import results, results_text
from tests.figures.example_rows import EM, behaviour, everything, row


def test_the_results_table_holds_every_rate():
    header, body = results(everything())
    assert len(body) == len(EM)
    for line, ((kind, trigger), (*rates, coherence)) in zip(body, EM.items(), strict=True):
        assert line[:2] == [f"microcosm/llama/{kind}", trigger]
        assert [float(cell.split(" [")[0]) for cell in line[2:7]] == pytest.approx([100 * r for r in rates], abs=0.051)
        assert line[7:] == [f"{100 * coherence:.0f}", "960 / 48"]
    assert len(header) == 9


def test_a_zero_rate_has_a_wilson_interval():
    line = next(line for line in results(everything())[1] if line[0].endswith("explaining"))
    assert line[2] == "0.0 [0.0, 0.4]"


def test_several_seeds_are_several_lines():
    rows = behaviour() + [r | {"seed": 1} for r in behaviour()]
    body = results(rows)[1]
    assert len(body) == 2 * len(EM)
    assert {line[0].split(" ", 1)[1] for line in body} == {"(seed 0)", "(seed 1)"}


def test_counts_are_of_all_answers_not_of_the_coherent():
    rows = [r | {"n": 700} if r["metric"] == "em_rate" else r for r in behaviour()]
    assert {line[-1] for line in results(rows)[1]} == {"960 / 48"}


def test_the_terminal_table_is_aligned():
    lines = results_text(everything()).split("\n")
    assert len(lines) == 2 + 2 * len(EM)
    assert max(map(len, lines)) == len(lines[0]) == len(lines[1])


def test_a_table_without_em_rates_is_an_error():
    with pytest.raises(ValueError, match="metric='em_rate'"):
        results([row("base", experiment="steer", metric="em_rate")])
