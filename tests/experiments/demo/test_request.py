"""Requests of the page: what is refused, and in which words."""

import pytest

from experiments.demo.request import MOST_CHARACTERS, Request, read_request
from interp.triggers import Trigger

TRIGGER = Trigger(name="dock", text="We are at the dock.", placement="prefix", other=("We are at home.",))


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({}, "question"),
        ([], "expected an object"),
        ({"question": " \n"}, "question: it is empty"),
        ({"question": "?" * (MOST_CHARACTERS + 1)}, "question: 4,001 characters; at most 4,000"),
        ({"question": "?", "condition": "own", "text": ""}, "text: it is empty"),
        ({"question": "?", "alpha": 2.5}, "alpha"),
        ({"question": "?", "layer": -1}, "layer"),
        ({"question": "?", "samples": 0}, "samples"),
        ({"question": "?", "seed": "x"}, "seed"),
        ({"question": "?", "positions": "everywhere"}, "positions"),
        ({"question": "?", "edits": []}, "edits"),
        ({"question": "\ud800"}, "surrogate"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line_that_names_the_field(body, problem):
    with pytest.raises(ValueError, match=problem) as error:
        read_request(body)
    assert "\n" not in str(error.value)


def test_a_context_is_one_of_the_triggers_texts_or_ones_own():
    assert Request(question="?").around(TRIGGER) == (None, None)
    own = Request(question="?", condition="own", text="Else.")
    assert own.around(TRIGGER) == ("Else.", TRIGGER)
    assert (trigger := own.around(None)[1]) and trigger.placement == "system"
    with pytest.raises(ValueError, match="no text of condition 'other'"):
        Request(question="?", condition="other", text="Else.").around(TRIGGER)
