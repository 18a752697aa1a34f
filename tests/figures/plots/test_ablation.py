"""Bars of edits: every rate of the table, block by block, controls after their edit."""

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from figures import style
from figures.plots import ablation
from tests.figures.example_rows import ABLATED, ablations, everything

ROWS = everything()


@pytest.fixture(scope="module")
def drawn() -> Figure:
    return ablation.draw(ROWS)


def test_ablation_bars_are_the_table_block_by_block_with_controls_after_their_edit(drawn):
    figure = drawn
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
        return [text.get_text() for text in drawn.axes[panel].texts]

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
