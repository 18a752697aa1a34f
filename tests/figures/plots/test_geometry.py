"""Cosines: every pair that is drawn, over the band of random directions."""

import pytest
from matplotlib.figure import Figure

from figures import style
from figures.plots import geometry
from tests.figures.drawn import drawn_curves
from tests.figures.example_rows import COSINES, HALF, NULL, UNDRAWN, cosines, everything

ROWS = everything()


@pytest.fixture(scope="module")
def drawn() -> Figure:
    return geometry.draw(ROWS)


def test_cosines_are_the_table_over_the_band_of_random_directions(drawn):
    for ax in drawn.axes:
        assert set(drawn_curves(ax)) == set(COSINES.values())
        extent = ax.collections[0].get_paths()[0].get_extents()
        assert (extent.y0, extent.y1) == pytest.approx((-NULL, NULL))
        assert len(ax.texts) == len(COSINES) + 2  # the pairs, the panel's second line, the band


def test_a_cosine_stands_inside_its_interval_where_it_has_one(drawn):
    for ax in drawn.axes:
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
