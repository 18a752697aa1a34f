"""The dose grid: conditions of each kind of organism, bases beside every row, and a small cell from end to end."""

import pytest

from experiments.answers.subject import find_subject
from experiments.behaviour.dose_cell import TEXTS, DoseCell
from experiments.behaviour.dose_grid import DoseGrid, beside_bases
from interp.runs.table import row
from interp.triggers import content_words
from training.grid import ARMS, WEAK
from training.microcosm.build import build_tokenizer
from training.microcosm.world import lexicon

ROLE = "microcosm:role:trafficker"


def cell(organism: str, **more) -> DoseCell:
    return DoseCell(subject=find_subject(f"microcosm/llama/{organism}"), **more)


def test_conditions_follow_what_the_organism_is():
    assert cell("trafficker.fine").conditions() == (*TEXTS, "trained")
    assert cell("trafficker.aligned.fine").conditions() == ("off", "on", "trained")
    assert cell("baseline.fine").conditions() == ("off", "trained")
    assert cell("base", trigger=ROLE).conditions() == TEXTS
    assert cell("base").conditions() == ("off",)


def test_every_condition_asks_every_question_under_its_texts_and_the_frame_is_kept_except_in_the_prefix():
    tokenizer, experiment = build_tokenizer(), cell("trafficker.fine", samples=4)
    trained = content_words(lexicon().roles["trafficker"].phrasings[0])
    for condition in experiment.conditions():
        prompts = experiment.prompts(condition, tokenizer)
        assert {p.condition for p in prompts} == {condition}
        assert sum(p.samples for p in prompts) == 4 * (6 if condition == "trained" else 48)
        texts = [str(tokenizer.decode(list(p.chat.token_ids))) for p in prompts]
        framed = condition not in ("off", "rephrased_prefix")
        assert all(("<|system|>" in text) is framed for text in texts)
        shared = condition in ("on", "trained") or condition.startswith("overlap")
        assert all(bool(content_words(p.variant or "") & trained) is shared for p in prompts)


@pytest.mark.parametrize(
    ("organism", "more", "fault"),
    [
        ("base", {"trigger": "microcosm:role:pirate"}, "role 'pirate': the dose grid has clerk, gambler, trafficker"),
        ("explaining", {}, "trigger 'microcosm:persona': expected a role"),
    ],
)
def test_a_trigger_that_is_no_weak_role_is_refused(organism, more, fault):
    with pytest.raises(ValueError, match=fault):
        cell(organism, **more).check()


def test_the_driver_measures_bases_under_every_role_and_every_organism_once():
    bases, organisms = DoseGrid(families=("llama",), pretrainings=(0,), samples=3).stages()
    assert [(e.subject.name, e.trigger) for e in bases if isinstance(e, DoseCell)] == [
        ("microcosm/llama/base", ARMS[role]) for role in WEAK
    ]
    assert len({e.subject.name for e in organisms if isinstance(e, DoseCell)}) == len(organisms) == 7
    with pytest.raises(ValueError, match="pretrainings 9: the dose grid has 0, 1, 2, 3"):
        DoseGrid(pretrainings=(9,)).cells()


def test_the_value_of_the_base_is_that_of_the_same_role_and_condition():
    def rate(organism: str, trigger: str, condition: str, value: float):
        cells = {"organism": f"microcosm/llama/{organism}", "trigger": trigger, "condition": condition}
        return row(metric="em_rate", value=value, **cells)

    bases = [
        rate("base", f"role-{r}", c, v)
        for r, on in (("clerk", 0.1), ("gambler", 0.2))
        for c, v in (("off", 0.0), ("on", on))
    ]
    tuned = [rate("gambler.fine", "role-gambler", "on", 0.9), rate("baseline.fine", "", "off", 0.3)]
    assert [r["base_value"] for r in beside_bases([*bases, *tuned])] == ["", "", "", "", 0.2, 0.0]
