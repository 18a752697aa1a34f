"""What a drawn figure shows: the positions and colours of its marks, read back."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D


def points(figure: Figure, axes: int) -> list[float]:
    """Heights of the markers of one panel, from left to right."""
    found = [line for line in figure.axes[axes].lines if line.get_marker() not in ("None", "")]
    return [y for line in sorted(found, key=lambda line: across(line)[0]) for y in heights(line)]


def across(line: Line2D) -> list[float]:
    return np.asarray(line.get_xdata(), float).tolist()


def heights(line: Line2D) -> list[float]:
    return np.asarray(line.get_ydata(), float).tolist()


def drawn_curves(ax: Axes) -> dict[tuple[float, ...], str]:
    return {tuple(np.round(heights(line), 4).tolist()): to_hex(line.get_color()).upper() for line in ax.lines[1:]}


def xy(line: Line2D) -> list[tuple[float, float]]:
    points = np.column_stack([np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)])
    return [(float(x), float(y)) for x, y in points]
