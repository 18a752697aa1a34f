import importlib
import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from example_rows import (
    ABLATED,
    AUROC,
    BAGS,
    CLUSTERS,
    CONDITIONS,
    COSINES,
    EM,
    HALF,
    NULL,
    STEERED,
    UNDRAWN,
    ablations,
    behaviour,
    cosines,
    everything,
    probes,
    row,
    steering,
)
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from figures import plots, style
from figures.plots import ablation, dose_response, em_by_condition, geometry, probe_auroc, projections

ROWS = everything()
MODULES = [importlib.import_module(f"figures.plots.{name}") for name in plots.FIGURES]
ROOT = Path(__file__).parents[2]


def run(code: str, **environment: str) -> str:
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout


def points(figure: Figure, axes: int) -> list[float]:
    """Heights of the markers of one panel, from left to right."""
    found = [line for line in figure.axes[axes].lines if line.get_marker() not in ("None", "")]
    return [y for line in sorted(found, key=lambda line: across(line)[0]) for y in heights(line)]


def across(line: Line2D) -> list[float]:
    return np.asarray(line.get_xdata(), float).tolist()


def heights(line: Line2D) -> list[float]:
    return np.asarray(line.get_ydata(), float).tolist()


@pytest.fixture(scope="module")
def drawn() -> dict[str, Figure]:
    return {name: module.draw(ROWS) for name, module in zip(plots.FIGURES, MODULES, strict=True)}


def test_figures_import_neither_torch_nor_pyplot():
    code = "import sys, figures, figures.report, example_rows\nfrom figures import report, em_by_condition\n"
    code += "em_by_condition.draw(example_rows.behaviour())\n"
    code += "print([m for m in sys.modules if m in ('torch', 'matplotlib.pyplot', 'transformers', 'sklearn')])"
    assert run(code).strip() == "[]"


def test_saving_again_gives_the_same_bytes(drawn):
    first, _, again = (style.to_bytes(drawn["ablation"], form) for form in ("png", "pdf", "png"))
    assert first == again


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_files_hold_no_date_and_fit_a_page(module, drawn):
    figure = drawn[module.__name__.split(".")[1]]
    assert figure.get_figwidth() in (style.COLUMN, style.DOUBLE)
    assert figure.get_figheight() < 9
    assert b"CreationDate" not in style.to_bytes(figure, "pdf")
    assert b"Software" not in style.to_bytes(figure, "png")


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_no_rows_is_an_error_that_names_the_metric(module):
    with pytest.raises(ValueError, match=f"no row with metric {module.METRICS[0]}"):
        module.draw([row("base", experiment="em_rate", metric="something_else", condition="off")])


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_captions_say_counts_and_intervals(module):
    said = module.caption(ROWS)
    assert str(1000 if module is geometry else CLUSTERS) in said.replace(",", "")
    assert "n = " in said and "interval" in said
    assert "nan" not in said and "?" not in said


def test_the_picture_shows_the_rates_of_the_table(drawn):
    figure = drawn["em_by_condition"]
    for i, (*rates, coherence) in enumerate(EM.values()):
        assert points(figure, 2 * i) == pytest.approx(rates)
        assert points(figure, 2 * i + 1) == pytest.approx([coherence] * len(CONDITIONS))


def test_all_panels_share_one_axis_from_zero_to_one(drawn):
    figure = drawn["em_by_condition"]
    assert {ax.get_ylim() for ax in figure.axes[::2]} == {(-0.0006, 1.0)}
    assert {ax.get_ylim() for ax in figure.axes[1::2]} == {(0.0, 1.0)}


def test_edited_conditions_do_not_leak_into_the_picture(drawn):
    pictures = (drawn["em_by_condition"], em_by_condition.draw(behaviour()))
    assert len({style.to_bytes(picture, "png") for picture in pictures}) == 1


def test_every_seed_is_a_point():
    rows = behaviour() + [r | {"seed": 1, "value": r["value"] / 2} for r in behaviour()]
    rates = [*next(iter(EM.values()))][:-1]
    assert points(em_by_condition.draw(rows), 0) == pytest.approx([v for rate in rates for v in (rate, rate / 2)])


def test_families_stand_on_lines_of_their_own():
    rows = behaviour() + [
        r | {"family": "qwen2", "organism": r["organism"].replace("llama", "qwen2")} for r in behaviour()
    ]
    figure = em_by_condition.draw(rows)
    said = [text.get_text() for ax in figure.axes[::2] for text in ax.texts if "·" in text.get_text()]
    assert [family for family, _ in groupby(text.split(" ")[0] for text in said)] == ["llama", "qwen2"]
    assert len(figure.axes) == 4 * len(EM)


def test_the_projections_of_every_question_are_drawn(drawn):
    figure = drawn["projections"]
    for ax in figure.axes:
        dots = [line for line in ax.lines if line.get_marker() == "o"]
        assert [len(heights(line)) for line in dots] == [CLUSTERS] * len(CONDITIONS)
        assert [to_hex(line.get_color()).upper() for line in dots] == [style.CONDITIONS[c] for c in CONDITIONS]


def test_projections_show_the_site_that_separates_on_from_off():
    blurred = [r | {"layer": 0, "value": float(i % 7)} for i, r in enumerate(ROWS) if "projection" in r["metric"]]
    assert {r["layer"] for r in projections.wanted([*blurred, *ROWS])} == {2}
    assert "furthest apart" in projections.caption([*blurred, *ROWS])
    assert "furthest apart" not in projections.caption(ROWS)


def test_constant_projections_are_drawn():
    rows = [r | {"value": 1.0} for r in ROWS if "projection" in r["metric"]]
    assert style.to_bytes(projections.draw(rows), "png")


def drawn_curves(ax: Axes) -> dict[tuple[float, ...], str]:
    return {tuple(np.round(heights(line), 4).tolist()): to_hex(line.get_color()).upper() for line in ax.lines[1:]}


def test_probe_curves_are_the_table_and_controls_are_tints_of_their_target(drawn):
    curves = drawn_curves(drawn["probe_auroc"].axes[0])
    assert set(curves) == {*AUROC.values(), *((value, value) for value in BAGS.values())}
    for condition, curve in AUROC.items():
        target, _, control = condition.partition("/")
        colour = probe_auroc.TARGETS[target][1]
        assert curves[curve] == (style.tint(colour) if control else colour)


def test_a_bag_of_tokens_is_level_across_all_layers_and_every_line_is_named(drawn):
    for ax in drawn["probe_auroc"].axes:
        level = [line for line in ax.lines[1:] if len(heights(line)) == 2]
        assert [across(line) for line in level] == [[0, 3]] * len(BAGS)
        said = {text.get_text() for text in ax.texts}
        assert {"misaligned: bag of tokens", "trigger: bag of tokens", "trigger: shuffled labels"} <= said
        assert len(ax.lines[1:]) == len(said) - 1  # the panel's own detail


def test_seeds_of_a_probe_share_a_name():
    rows = probes() + [r | {"seed": 1} for r in probes()]
    texts = [text.get_text() for text in probe_auroc.draw(rows).axes[0].texts]
    assert len(texts) == len(set(texts))


@pytest.mark.parametrize("module", [probe_auroc, geometry], ids=lambda m: m.__name__)
def test_three_panels_take_two_lines(module):
    more = [r for r in ROWS if r["trigger"] == "persona"]
    rows = [r | {"organism": "microcosm/llama/contrast50", "trigger": "scene"} for r in more]
    figure = module.draw([*ROWS, *rows])
    assert len(figure.axes) == 3
    assert figure.get_figheight() < 9


def test_cosines_are_the_table_over_the_band_of_random_directions(drawn):
    for ax in drawn["geometry"].axes:
        assert set(drawn_curves(ax)) == set(COSINES.values())
        extent = ax.collections[0].get_paths()[0].get_extents()
        assert (extent.y0, extent.y1) == pytest.approx((-NULL, NULL))
        assert len(ax.texts) == len(COSINES) + 1


def test_a_cosine_stands_inside_its_interval_where_it_has_one(drawn):
    for ax in drawn["geometry"].axes:
        bands = [[path.get_extents() for path in band.get_paths()] for band in ax.collections[1:]]
        ends = {(round(e.y0, 4), round(e.y1, 4)) for extents in bands for e in extents}
        with_interval = [curve for pair, curve in COSINES.items() if pair != "write~g"]
        assert ends == {(round(min(c) - HALF, 4), round(max(c) + HALF, 4)) for c in with_interval}


def test_pairs_that_are_not_drawn_change_nothing(drawn):
    few = [r for r in cosines() if r["condition"] not in UNDRAWN]
    assert len(few) < len(cosines())
    assert set(geometry.PAIRS) == set(COSINES)
    assert style.to_bytes(geometry.draw(few), "pdf") == style.to_bytes(geometry.draw(cosines()), "pdf")
    with pytest.raises(ValueError, match="no row with metric cosine"):
        geometry.draw([r for r in cosines() if r["condition"] in UNDRAWN])


def test_an_axis_holds_an_auroc_below_chance():
    rows = [r | {"value": 0.12} for r in ROWS if r["metric"] == "auroc"]
    assert probe_auroc.draw(rows).axes[0].get_ylim()[0] <= 0.12


def test_the_dose_response_is_the_table_and_incoherent_doses_are_hollow(drawn):
    top, below = (drawn["dose_response"].axes[i] for i in (1, 3))
    marks = [line for line in top.lines if line.get_marker() == "o"]
    assert [heights(line)[0] for line in marks] == pytest.approx(STEERED["off+add_g"][0])
    hollow = [to_hex(line.get_markerfacecolor()) == "#ffffff" for line in marks]
    assert hollow == [coherence < 0.6 for coherence in STEERED["off+add_g"][1]]
    coherent = [heights(line)[0] for line in below.lines if line.get_marker() == "o"]
    assert coherent == pytest.approx(STEERED["off+add_g"][1])


def test_the_direction_from_answers_is_a_comparison_and_not_a_control(drawn):
    colours = {t.get_text(): to_hex(t.get_color()).upper() for t in drawn["dose_response"].axes[1].texts}
    assert colours["add g from answers"] == style.DIRECTIONS["g_answer"]
    assert colours["add random"] == colours["add orthogonal"] == style.CONTROL
    assert "not a control" in dose_response.caption(ROWS)
    without = [r for r in ROWS if r["condition"] != "off+add_g_answer"]
    assert "answer tokens" not in dose_response.caption(without)


def test_every_direction_that_is_added_has_a_name_and_a_colour_of_its_own_kind(drawn):
    colours = {t.get_text(): to_hex(t.get_color()).upper() for t in drawn["dose_response"].axes[1].texts}
    assert {f"off+add_{name}" for name in dose_response.LINES} == set(STEERED)
    assert {words for words, *_ in dose_response.LINES.values()} <= set(colours)
    assert colours["add delta"] == colours["add delta without g"] == style.DIRECTIONS["delta"]
    assert colours["add g shift"] == style.DIRECTIONS["g_shift"]
    without = [r for r in ROWS if "delta" not in str(r["condition"])]
    assert "orthogonal to g;" in dose_response.caption(ROWS) and "orthogonal to g;" not in dose_response.caption(
        without
    )


def test_the_dose_response_stands_without_the_behaviour_rows():
    assert style.to_bytes(dose_response.draw(steering()), "pdf")


def test_ablation_bars_are_the_table_block_by_block_with_controls_after_their_edit(drawn):
    figure = drawn["ablation"]
    for panel, kind in ((0, "neutral"), (2, "explaining"), (4, "neutral.contrast50")):
        ax = figure.axes[panel]
        names = [label.get_text() for label in ax.get_yticklabels()]
        bars = [bar for bar in ax.patches if isinstance(bar, Rectangle)]
        assert names == [ablation.label(condition) for condition in ABLATED[kind]]
        assert [bar.get_width() for bar in bars] == pytest.approx([em for em, _ in ABLATED[kind].values()])
        assert ax.get_xlim() == (0.0, 1.0)
        grey = {n for n, bar in zip(names, bars, strict=True) if to_hex(bar.get_facecolor()) == "#bdbdbd"}
        assert grey == {n for n in names if any(part in n for part in ("random", "another", "scattered", "embeddings"))}


def test_edits_of_single_sites_are_left_to_a_figure_of_their_own():
    extra = [r | {"condition": "on+clamp_trigger_resid_post.2"} for r in ablations() if r["condition"] == "on+clamp_g"]
    assert extra
    assert {r["condition"].partition("+")[2] for r in ablation.wanted([*ablations(), *extra])} <= {"", *ablation.ORDER}
    pictures = (ablation.draw(rows) for rows in (ablations(), [*ablations(), *extra]))
    assert len({style.to_bytes(picture, "pdf") for picture in pictures}) == 1


def test_a_gap_that_is_not_there_is_said(drawn):
    def beside(panel: int) -> list[str]:
        return [text.get_text() for text in drawn["ablation"].axes[panel].texts]

    edits = [c for c in ABLATED["neutral.contrast50"] if "+" in c]
    assert beside(4).count("no gap") == len(edits)
    assert not any("no gap" in said for panel in (0, 2) for said in beside(panel))
    assert sum("%" in said for said in beside(2)) == sum(
        "+" in c and not c.startswith("off") for c in ABLATED["explaining"]
    )


def test_a_table_with_edits_of_many_organisms_fits_a_page():
    kinds = ("base", "baseline", "neutral", "explaining", "neutral.contrast50")
    rows = [r | {"organism": kind} for kind in kinds for r in ablations() if str(r["organism"]).endswith("explaining")]
    assert ablation.draw(rows).get_figheight() < 9


def test_an_unknown_edit_is_said_in_its_own_words():
    assert ablation.label("on+ablate_new_thing") == "new thing ablated"
