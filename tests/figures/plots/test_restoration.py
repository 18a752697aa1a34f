"""The restoration figure: a panel an arm and family, a line an edit, a point a seed; what is missing is a gap."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from figures import style
from figures.plots import restoration
from figures.plots.ablation import label
from figures.plots.restoration import ARMS, EDITS, FAMILIES
from tests.figures.drawn import xy
from tests.figures.example_rows import N, ablations, rate

SEEDS = (0, 1, 2)
UNEDITED = {"off": 0.02, "on": 0.9}


def value(edit: str, arm: str, family: str, seed: int) -> float:
    """A rate that is different in every cell."""
    places = (list(EDITS).index(edit), ARMS.index(arm), list(FAMILIES).index(family), seed)
    return float(np.dot(places, (0.05, 0.015, 0.004, 0.001)) + 0.05)


def measured(arm: str, family: str, seed: int) -> list[dict]:
    out = []
    kind = arm + f".seed{seed}" * bool(seed)
    cells = UNEDITED | {edit: value(edit, arm, family, seed) for edit in EDITS}
    for condition, em in cells.items():
        about = {"experiment": "ablate", "condition": condition, "seed": seed, "family": family, "trigger": "t"}
        for metric, shown in (("em_rate", em), ("coherence_rate", 0.95), ("em_rate_all", em / 2)):
            out += rate(kind, shown, metric=metric, **about)
    return [r | {"organism": f"microcosm/{family}/{kind}"} for r in out]


ROWS = [r for arm in ARMS for family in FAMILIES for seed in SEEDS for r in measured(arm, family, seed)]


def points(ax: Axes) -> list[tuple[float, float, str]]:
    """(value, height, colour) of every point of a panel, from top to bottom."""
    found = [
        (x, y, to_hex(line.get_color()).upper()) for line in ax.lines if line.get_marker() == "o" for x, y in xy(line)
    ]
    return sorted(found, key=lambda point: point[1])


def levels(ax: Axes) -> dict[str, float]:
    """Where the lines of the unedited rates stand, by colour."""
    upright = [
        line
        for line in ax.lines
        if line.get_marker() == "None" and np.array_equal(np.asarray(line.get_ydata()), [0, 1])
    ]
    return {to_hex(line.get_color()).upper(): float(np.asarray(line.get_xdata())[0]) for line in upright}


def panels(rows) -> list[list[Axes]]:
    figure = restoration.draw(rows)
    columns = len({r["family"] for r in restoration.wanted(rows)})
    return [figure.axes[i : i + columns] for i in range(0, len(figure.axes), columns)]


def test_every_panel_is_its_arm_and_family_and_every_seed_a_point():
    grid = panels(ROWS)
    assert [ax.get_title() for ax in grid[0]] == list(FAMILIES.values())
    for arm, line in zip(ARMS, grid, strict=True):
        for family, ax in zip(FAMILIES, line, strict=True):
            expected = [value(edit, arm, family, seed) for edit in EDITS for seed in SEEDS]
            assert [x for x, *_ in points(ax)] == pytest.approx(expected)
            heights = [y for _, y, _ in points(ax)]
            assert min(np.diff(heights)) > 0.1  # seeds stand apart, and edits further


def test_lines_are_named_in_words_and_rephrasings_stand_apart():
    ax = panels(ROWS)[0][0]
    assert [text.get_text() for text in ax.get_yticklabels()] == [label(edit) for edit in EDITS]
    heights = dict(zip(EDITS, ax.get_yticks(), strict=True))
    trained = [y for edit, y in heights.items() if edit.startswith("on")]
    assert np.diff(trained) == pytest.approx(1)
    assert heights["rephrased+clamp_trigger"] - max(trained) == pytest.approx(1 + restoration.SPLIT)


def test_colours_say_feature_g_and_controls():
    colours = dict(zip([e for e in EDITS for _ in SEEDS], [c for *_, c in points(panels(ROWS)[0][0])], strict=True))
    for edit, colour in colours.items():
        target = edit.partition("_")[2]
        expected = {"trigger": style.DIRECTIONS["trigger"], "g": style.DIRECTIONS["g"], "g_all": style.DIRECTIONS["g"]}
        assert colour == expected.get(target, style.CONTROL)


def test_unedited_rates_are_lines_at_the_mean_over_seeds():
    shifted = [
        r | {"value": r["value"] + 0.03 * r["seed"]} if r["condition"] in UNEDITED and r["metric"] == "em_rate" else r
        for r in ROWS
    ]
    for ax in (ax for line in panels(shifted) for ax in line):
        assert levels(ax) == pytest.approx({style.CONDITIONS[c]: em + 0.03 for c, em in UNEDITED.items()})


def test_the_same_rows_in_any_order_are_the_same_bytes():
    plain = style.to_bytes(restoration.draw(ROWS), "png")
    assert style.to_bytes(restoration.draw(ROWS), "png") == plain
    assert style.to_bytes(restoration.draw(sorted(ROWS, key=lambda r: (r["condition"], r["seed"]))), "png") == plain


def test_other_experiments_metrics_edits_and_organisms_change_nothing():
    strange = [
        *(r | {"experiment": "steer"} for r in ROWS),
        *(r | {"condition": "on+ablate_g"} for r in ROWS),
        *(r | {"metric": "gap_removed"} for r in ROWS),
        *(
            r | {"organism": r["organism"].replace("explaining", "explaining.robust")}
            for r in ROWS
            if "explaining" in r["organism"]
        ),
    ]
    assert restoration.wanted([*ROWS, *strange]) == restoration.wanted(ROWS)
    assert {r["metric"] for r in restoration.wanted(ROWS)} == {"em_rate"}
    with pytest.raises(ValueError, match="figure restoration: no row with metric em_rate"):
        restoration.draw(strange)


def test_what_is_missing_is_a_gap_and_moves_nothing_else():
    lost = [r for r in ROWS if r["condition"] not in ("on+clamp_trigger", "off")]
    undefined = [r | {"value": "", "ci_low": "", "ci_high": ""} if r not in lost else r for r in ROWS]
    full = panels(ROWS)
    for rows in (lost, undefined):
        for before, after in zip(full, panels(rows), strict=True):
            for one, two in zip(before, after, strict=True):
                first = list(EDITS).index("on+clamp_trigger") * len(SEEDS)
                assert points(two) == [p for i, p in enumerate(points(one)) if not first <= i < first + len(SEEDS)]
                assert levels(two) == {c: x for c, x in levels(one).items() if c == style.CONDITIONS["on"]}


@pytest.mark.parametrize("seeds", [(0,), (2,), (0, 2)])
def test_fewer_seeds_are_fewer_points(seeds):
    few = [r for r in ROWS if r["seed"] in seeds]
    assert len(points(panels(few)[0][0])) == len(EDITS) * len(seeds)


def test_one_arm_or_family_alone_is_drawn_and_an_unknown_family_under_its_own_name():
    one = [r for r in ROWS if r["family"] == "qwen2" and "explaining" in r["organism"]]
    assert [[ax.get_title() for ax in line] for line in panels(one)] == [["Qwen2"]]
    other = [r | {"family": "own", "organism": r["organism"].replace("qwen2", "own")} for r in one]
    for rows in ([*one, *other], [*other, *one]):
        line = panels(rows)[0]
        assert [ax.get_title() for ax in line] == ["Qwen2", "own"]
        assert points(line[0]) == points(line[1])
    assert style.to_bytes(restoration.draw(ablations()), "pdf")


def test_the_figure_fits_a_page_and_the_caption_says_counts_and_intervals():
    figure = restoration.draw(ROWS)
    assert figure.get_figwidth() == style.DOUBLE and figure.get_figheight() < 9
    assert b"CreationDate" not in style.to_bytes(figure, "pdf")
    coherent = [r | {"n": 900} if r["metric"] == "em_rate" else r for r in ROWS]
    said = restoration.caption(coherent)
    assert f"n = {N} sampled answers to 48 questions (the clusters) per point" in said  # not the coherent ones alone
    assert "question-cluster bootstrap intervals" in said
    assert "nan" not in said and "?" not in said
    assert restoration.TITLE and restoration.READING and restoration.CONTROL
    assert restoration.METRICS == ("em_rate",)
