import itertools

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from figures import style
from interp.triggers import CONDITIONS

SIGHT = {  # Machado, Oliveira, Fernandes 2009: full severity, linear RGB, row by row
    "normal": (1, 0, 0, 0, 1, 0, 0, 0, 1),
    "protan": (0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998),
    "deutan": (0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.011820, 0.042940, 0.968881),
    "tritan": (1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.303900),
}


def lab(colour: str, sight: str) -> np.ndarray:
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.reshape(SIGHT[sight], (3, 3)) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    f = np.cbrt(np.maximum(xyz / [0.9505, 1.0, 1.089], 1e-9))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHT)
def test_the_conditions_of_every_figure_are_told_apart_by_every_eye(sight):
    shown = [style.CONDITIONS[c] for c in ("off", "on", "rephrased", "other", "opposite")]
    points = [lab(colour, sight) for colour in shown]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(points, 2)) > 10


@pytest.mark.parametrize("sight", SIGHT)
def test_directions_and_controls_are_told_apart_by_every_eye(sight):
    points = [lab(colour, sight) for colour in (*style.DIRECTIONS.values(), style.CONTROL)]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(points, 2)) > 10


def test_every_condition_has_its_own_colour():
    assert tuple(style.CONDITIONS) == CONDITIONS
    conditions, directions = list(style.CONDITIONS.values()), list(style.DIRECTIONS.values())
    for colours in ([*conditions, style.CONTROL], [*directions, style.CONTROL]):
        assert len(set(colours)) == len(colours)
    shared = {name for name, colour in style.DIRECTIONS.items() if colour in conditions}
    assert shared == {"delta"}  # the shift that the trigger makes: from off to on, in the colour of on
    assert style.DIRECTIONS["delta"] == style.CONDITIONS["on"]


def test_every_direction_that_figures_draw_has_a_colour():
    assert set(style.DIRECTIONS) == {"g", "g_answer", "g_shift", "trigger", "delta", "write"}


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.01, 0.2))
def test_labels_are_moved_apart_and_keep_their_order(values, gap):
    placed = style.spread(values, gap)
    ordered = sorted(zip(values, placed, strict=True), key=lambda pair: pair[0])
    assert sorted(placed) == pytest.approx([p for _, p in sorted(ordered, key=lambda pair: pair[1])])
    assert all(b - a > gap - 1e-9 for a, b in itertools.pairwise(sorted(placed)))
    assert np.mean(placed or [0]) == pytest.approx(np.mean(values or [0]))


@given(st.lists(st.integers(0, 50), unique=True, max_size=8))
def test_labels_that_are_apart_stay(values):
    assert style.spread([float(v) for v in values], 1.0) == pytest.approx(values)


def test_the_root_scale_keeps_order_and_zero():
    ax = style.canvas(1, 1).subplots()
    style.root_scale(ax)
    transform = ax.yaxis.get_transform()
    x = np.linspace(0, 1, 101)
    y = transform.transform(x)
    assert y[0] == 0 and y[-1] == 1 and (np.diff(y) > 0).all()
    np.testing.assert_allclose(transform.inverted().transform(y), x, atol=1e-12)


def test_the_users_settings_neither_change_a_figure_nor_are_changed():
    def picture() -> bytes:
        with style.paper():
            figure = style.canvas(1, 1)
            figure.subplots().plot([0, 1])
        return style.to_bytes(figure, "png")

    plain = picture()
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        assert picture() == plain
        assert dict(matplotlib.rcParams) == before


def test_an_unknown_format_is_an_error():
    with pytest.raises(ValueError, match="format 'gif'"):
        style.to_bytes(style.canvas(1, 1), "gif")


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        (["wilson"], "95 % Wilson intervals"),
        (["", "cluster_bootstrap"], "95 % question-cluster bootstrap intervals"),
        ([], "no intervals"),
        (["new"], "95 % new intervals"),
    ],
)
def test_intervals_are_named(methods, said):
    assert style.interval_text(methods) == said
