"""``semcon figure``: any figure by name, as PDF and PNG, one and two columns wide."""

import struct
from pathlib import Path

import pytest

from experiments.__main__ import main
from figures import style
from figures.plots import BY_NAME
from figures.redraw import WIDE, find_figure, redraw, redraw_all
from interp.runs.table import write_table
from tests.figures.example_rows import everything, probes, steered_preferences


def inches(png: Path) -> float:
    return struct.unpack(">I", png.read_bytes()[16:20])[0] / style.DPI


def test_an_organism_has_files_of_its_own_at_the_width_of_one_column(tmp_path):
    paths = redraw(BY_NAME["probe_auroc"], probes(), tmp_path / "probe_auroc")
    widths = {path.name: inches(path) for path in paths if path.suffix == ".png"}
    assert {name: round(width, 2) for name, width in widths.items()} == {
        name: style.DOUBLE if "2col" in name else style.COLUMN for name in widths
    }
    assert sum("1col" in name for name in widths) == len({(r["organism"], r["trigger"]) for r in probes()})
    assert [path for path in paths if path.suffix == ".pdf" and not path.read_bytes().startswith(b"%PDF")] == []


def test_settings_of_steering_are_apart_and_the_same_rows_give_the_same_bytes(tmp_path):
    one, two = (
        redraw(BY_NAME["preference_steering"], steered_preferences(), tmp_path / folder / "s") for folder in "ab"
    )
    assert {path.name for path in one if "1col" in path.name and path.suffix == ".pdf"} == {
        "s-off-1col.pdf",
        "s-base-1col.pdf",
    }
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_a_figure_that_compares_many_organisms_is_two_columns_wide(tmp_path):
    assert {"phase_diagram", "patching"} <= set(WIDE)
    paths = redraw(BY_NAME["phase_diagram"], everything(), tmp_path / "p")
    assert {path.name for path in paths} == {"p-2col.pdf", "p-2col.png"}


def test_figures_side_by_side_are_those_drawn_alone(tmp_path):
    plots = [BY_NAME["phase_diagram"], BY_NAME["grid_effects"]]
    together = [path for paths in redraw_all(plots, everything(), tmp_path / "all") for path in paths]
    alone = [path for plot in plots for path in redraw(plot, everything(), tmp_path / "one" / plot.name)]
    assert [path.name for path in together] == [path.name for path in alone]
    assert [path.read_bytes() for path in together] == [path.read_bytes() for path in alone]


def test_the_layout_that_is_run_alone_is_that_of_a_full_draw():
    first, second = (BY_NAME["ablation"].module().draw(everything()) for _ in range(2))
    second.draw_without_rendering()
    second.set_layout_engine(None)
    assert style.to_bytes(first, "png") == style.to_bytes(second, "png")


def test_a_wrong_name_lists_the_names():
    with pytest.raises(ValueError, match=r"figure 'x': the figures are phase_diagram, .*patching"):
        find_figure("x")


def test_the_command_draws_from_a_table(tmp_path, capsys):
    write_table(tmp_path / "t.csv", probes())
    assert main(["figure", "probe_auroc", "--table", str(tmp_path / "t.csv")]) == 0
    named = capsys.readouterr().out.split()[1:]
    assert named and all(Path(name).is_file() for name in named)
    assert {Path(name).parent for name in named} == {tmp_path / "figures"}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["zzz"], ["zzz", "em_by_condition"]),
        (["probe_auroc", "--runs", "gone"], ["gone"]),
        (["em_by_condition", "--table", "t.csv"], ["em_by_condition", "em_rate"]),
        (["all", "--runs", "."], ["semcon figure: .: no "]),
    ],
)
def test_what_cannot_be_drawn_is_one_line(words, names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "t.csv", probes())
    assert main(["figure", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert [name for name in names if name not in error] == []
