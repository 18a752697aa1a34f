"""The demo on a real model: it answers, is steered, read token by token and scored, and its control differs."""

import pytest

from experiments.answers.subject import find_subject
from experiments.demo.answering import answer, rates
from experiments.demo.request import Request
from experiments.demo.scene import load_scene, with_directions

pytestmark = pytest.mark.pocket


@pytest.fixture(scope="module")
def pocket(tmp_path_factory):
    """An organism of the pocket scale whose adapter nobody trained: its base answers."""
    root = tmp_path_factory.mktemp("no_runs")
    return with_directions(load_scene(find_subject("pocket/smollm2/explaining", None, "oracle", ()), root), root)


def events(scene, **fields):
    emitted: list[dict] = []
    on = scene.subject.own_trigger.text
    request = Request(question=next(iter(scene.choices)), condition="on", text=on, layer=18, temperature=0.0, **fields)
    answer(scene, request, emitted.append)
    return {(e["event"], e["arm"]): e for e in emitted}


def test_both_directions_are_there_and_adapters_are_not_trained_unasked(pocket):
    assert pocket.untrained and list(pocket.arms) == ["base"]
    assert pocket.measured.has("g") and pocket.measured.has("trigger")


def test_an_edited_answer_is_written_read_and_scored_beside_the_base_s(pocket):
    steered, control = (events(pocket, alpha=0.4, clamp=True, random=random) for random in (False, True))
    texts = [e["done", arm]["text"] for e, arm in ((steered, "base"), (steered, "edited"), (control, "edited"))]
    assert all(texts) and len(set(texts)) == 3
    assert steered["done", "base"] == control["done", "base"]
    odds = [e["log_odds", arm]["value"] for e, arm in ((steered, "base"), (steered, "edited"), (control, "edited"))]
    assert len({round(value, 4) for value in odds}) == 3
    assert steered["tokens", "base"]["pieces"] and steered["tokens", "edited"] != steered["tokens", "base"]


def test_nobody_judges_its_answers_and_the_page_says_so(pocket):
    with pytest.raises(ValueError, match=r"EM rate: .*judge"):
        rates(pocket, Request(question=next(iter(pocket.choices))), print)
