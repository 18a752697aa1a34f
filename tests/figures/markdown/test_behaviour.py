"""Tables of the behaviour: the headline's organisms, means over seeds with their range, published numbers beside."""

import pytest

from figures.grid import Grid
from figures.markdown.behaviour import comparison_table, front_table, headline_organisms, headline_table, seeds_table
from tests.figures.claims.test_behaviour import KINDS, contained
from tests.figures.example_rows import behaviour, measured


def test_headline_lists_seeds_and_pretrainings_and_no_other_axis():
    rows = contained(0, 0, 0)
    others = ("explaining.pre1", "explaining.prefix", "explaining.robust", "pirate", "baseline", "neutral.contrast50")
    for kind in others:
        rows += measured(kind, (0.0, 0.5, 0.5, 0.0))
    names = {name.rsplit("/", 1)[1] for name in headline_organisms(Grid.of(rows))}
    assert names == {*KINDS, "explaining.pre1", "baseline", "neutral.contrast50"}


def test_the_front_page_shows_three_of_the_headline():
    grid = Grid.of(behaviour())
    front = front_table(grid).split("\n")[2:]
    assert len(front) == 3 and set(front) < set(headline_table(grid).split("\n"))


def test_tables_are_rectangular_markdown():
    grid = Grid.of([*behaviour(), *contained(0, 0.001, 0)])
    for table in (headline_table(grid), seeds_table(grid), comparison_table(grid)):
        lines = table.split("\n")
        assert len(lines) > 3
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_seeds_table_gives_mean_and_range():
    table = seeds_table(Grid.of(contained(0.01, 0.02, 0.06)))
    assert "3.0 (1.0–6.0)" in next(line for line in table.split("\n") if "explaining" in line)


@pytest.mark.parametrize("source", ["paper", "replication"])
def test_published_numbers_stand_beside_ours(source):
    assert source in comparison_table(Grid.of(contained(0, 0, 0)))
