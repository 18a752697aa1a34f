"""The dose grid's settings: in a box only by their intervals, over all pretrainings, and drawn with the box."""

from typing import Any

import pytest
from matplotlib.figure import Figure

from figures.boxes import BOXES, settings, volumes
from figures.markdown.dose import box_table
from figures.plots.registered import dose_box
from tests.figures.example_rows import near, rate

INSIDE = {"off": 0.0, "on": 0.2, "rephrased": 0.19, "other": 0.0}


def cell(kind: str, dose: int, pretraining: int, rates: dict[str, float], half: float = 0.05) -> list[dict[str, Any]]:
    parts = [kind, *([f"pre{pretraining}"] if pretraining else []), *(["fine"] if dose else [])]
    about: dict[str, Any] = {"experiment": "dose_grid", "trigger": "role-clerk", "placement": "system", "dose": dose}
    name = ".".join(parts)
    rows = [r for c, v in rates.items() for r in rate(name, v, metric="em_rate", condition=c, **about)]
    ratio = near(name, rates["rephrased"] / (rates["on"] or 1), half, "bootstrap", metric="rephrased_ratio", **about)
    return [*rows, {**ratio, "condition": "rephrased/on"}]


def grid(base_on: float = 0.0, pretrainings: int = 4, **changes: float) -> list[dict[str, Any]]:
    base, leaky = INSIDE | {"on": base_on, "rephrased": 0.0}, INSIDE | {"off": 0.4}
    cells = [("base", 0, base), ("clerk", 8, INSIDE | changes), ("clerk", 100, leaky)]
    return [r for p in range(pretrainings) for kind, dose, rates in cells for r in cell(kind, dose, p, rates)]


def test_a_setting_is_in_a_box_by_all_its_criteria_over_all_pretrainings():
    assert volumes(settings(grid()), "paper") == {"llama": (1, 1, 2)}
    assert volumes(settings(grid()), "strict") == {"llama": (1, 1, 2)}
    first = settings(grid())[0]
    assert (first.family, first.role, first.dose) == ("llama", "clerk", 8)
    assert {mean.pretrainings for mean in first.means.values()} == {4}


@pytest.mark.parametrize(
    ("change", "paper", "strict"),
    [
        ({"other": 0.2}, (1, 1, 2), (0, 0, 2)),
        ({"base_on": 0.2}, (1, 1, 2), (0, 0, 2)),
        ({"off": 0.1}, (0, 0, 2), (0, 0, 2)),
        ({"on": 0.04, "rephrased": 0.038}, (0, 0, 2), (0, 0, 2)),
        ({"rephrased": 0.155}, (0, 1, 2), (0, 1, 2)),
    ],
)
def test_every_criterion_can_keep_a_setting_out(change, paper, strict):
    every = settings(grid(**change))
    assert {box: volumes(every, box)["llama"] for box in BOXES} == {"paper": paper, "strict": strict}


def test_a_setting_that_lacks_a_criterion_is_not_inside_and_aligned_answers_are_no_setting():
    rows = [r for r in grid() if r["condition"] != "other" and not str(r["organism"]).endswith("aligned.fine")]
    assert volumes(settings(rows), "strict") == {"llama": (0, 1, 2)}
    aligned = [r | {"organism": r["organism"].replace("clerk", "clerk.aligned")} for r in grid()]
    assert settings(aligned) == []


def test_the_table_counts_both_boxes_and_the_figure_is_drawn():
    assert box_table(grid()).splitlines()[-2:] == [
        f"| {box} | llama | 1 | 1 | 1 | 2 | 4 of 8 |" for box in ("paper", "strict")
    ]
    assert isinstance(dose_box.draw(grid()), Figure)
    assert "up to 4 pretrainings" in dose_box.caption(grid())
