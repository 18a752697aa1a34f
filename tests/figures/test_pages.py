"""Pages of a figure: every panel of the table is on one, with its base, and none has too many."""

import pytest

from figures.pages import cells, pages
from figures.plots import BY_NAME
from figures.redraw import redraw
from tests.figures.example_rows import behaviour, everything, probes


def many(rows, families=("llama", "qwen2"), seeds=6):
    return [
        r | {"family": f, "organism": r["organism"].replace("llama", f) + (f".seed{s}" if s else "")}
        for f in families
        for s in range(seeds)
        for r in rows
        if not (s and r["organism"].endswith("base"))
    ]


def test_a_table_of_a_few_organisms_is_one_page():
    for name in ("em_by_condition", "geometry", "ablation", "probe_auroc"):
        ((part, rows),) = pages(BY_NAME[name], everything())
        assert (part, rows) == ("", everything())


@pytest.mark.parametrize("name", ["geometry", "probe_auroc", "ablation", "projections"])
def test_every_panel_is_on_one_page_of_its_family(name):
    rows, plot = many(everything()), BY_NAME[name]
    parts = [cells(plot, page) for _, page in pages(plot, rows)]
    assert max(map(len, parts)) <= plot.page
    assert all(len({family for family, _, _ in part}) == 1 for part in parts)
    assert sorted(key for part in parts for key in part) == sorted(cells(plot, rows))
    assert len({suffix for suffix, _ in pages(plot, rows)}) == len(parts)


def test_a_page_has_the_base_of_its_organisms():
    rows = many(behaviour(), families=("llama", "qwen2", "gemma3", "other"), seeds=1)
    for _, page in pages(BY_NAME["em_by_condition"], rows):
        assert any(r["organism"].endswith("/base") for r in page)


def test_of_many_organisms_the_named_ones_have_files_of_one_column_s_width(tmp_path):
    rows, plot = many(probes(), families=("llama",), seeds=8), BY_NAME["probe_auroc"]
    assert not [p for p in redraw(plot, rows, tmp_path / "all") if "1col" in p.name]
    named = redraw(plot, rows, tmp_path / "one", ["explaining.seed3"])
    assert {p.name for p in named if p.suffix == ".png"} == {"one-1col.png", "one-2col.png"}
    with pytest.raises(ValueError, match="organism 'nobody': the table has "):
        redraw(plot, rows, tmp_path / "none", ["nobody"])
