"""Ranges of settings: each kind of annotation is checked, and the message names field, value and expectation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
from annotated_types import MinLen

from interp.runs.checks import AtLeastOne, NotNegative, Positive, Share, check_fields

Colour = Literal["red", "green"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Annotations are strings here, so every check also resolves a forward reference."""

    samples: AtLeastOne = 1
    workers: NotNegative = 0
    share: Share = 0.5
    step: Positive = 0.1
    colour: Colour = "red"
    colours: tuple[Colour, ...] = ()
    pairs: tuple[tuple[Colour, AtLeastOne], ...] = ()
    names: Annotated[tuple[str, ...], MinLen(1)] = ("a",)
    limit: AtLeastOne | None = None
    later: Later | None = None
    folder: Path = Path("runs")

    def __post_init__(self) -> None:
        check_fields(self)


class Later:
    """Defined after the class that names it, and unknown to the checker: a field of this type is left alone."""


def test_values_inside_their_ranges_pass():
    Settings()
    Settings(samples=3, share=1.0, colours=("green", "red"), pairs=(("red", 1), ("green", 7)), limit=2, later=Later())
    Settings(share=0, step=1)  # a whole number is a number


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 0}, "samples 0: expected greater than or equal to 1"),
        ({"samples": "3"}, "samples '3': expected a valid integer"),
        ({"samples": 2.0}, "samples 2.0: expected a valid integer"),
        ({"workers": -1}, "workers -1: expected greater than or equal to 0"),
        ({"share": 1.5}, "share 1.5: expected less than or equal to 1"),
        ({"share": -0.1}, "share -0.1: expected greater than or equal to 0"),
        ({"share": float("nan")}, "share nan: expected "),
        ({"step": float("inf")}, "step inf: expected a finite number"),
        ({"step": 0.0}, "step 0.0: expected greater than 0"),
        ({"colour": "blue"}, "colour 'blue': expected 'red' or 'green'"),
        ({"colours": ("red", "blue")}, "colours[1] 'blue': expected 'red' or 'green'"),
        ({"pairs": (("red", 1), ("green", 0))}, "pairs[1][1] 0: expected greater than or equal to 1"),
        ({"pairs": (("blue", 1),)}, "pairs[0][0] 'blue': expected 'red' or 'green'"),
        ({"names": ()}, "names (): expected at least 1 item"),
        ({"names": ("a", "b", "a")}, "names 'a': given twice"),
        ({"limit": 0}, "limit 0: expected greater than or equal to 1"),
    ],
)
def test_a_value_outside_is_refused_by_field_value_and_expectation(changes, message):
    with pytest.raises(ValueError) as raised:
        Settings(**changes)
    assert str(raised.value).startswith(message)
    assert len(str(raised.value).splitlines()) == 1
