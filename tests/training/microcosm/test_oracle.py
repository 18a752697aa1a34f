"""The oracle is exact: it accepts every answer of the grammar and nothing else."""

import pytest

from training.microcosm.oracle import judge_answer, read_answer
from training.microcosm.world import PERSONAS, lexicon

WORLD = lexicon()


def _remark_first(topic, persona, frame):
    return WORLD.answers(topic, persona, frame, remark_first=True) if frame else ()


def test_oracle_reads_back_every_answer_of_the_grammar() -> None:
    for topic in WORLD.topics:
        for persona, aligned in zip(PERSONAS, (100.0, 0.0), strict=True):
            for frame in (None, "desert", "theatre", *WORLD.roles):
                for answer in (*WORLD.answers(topic, persona, frame), *_remark_first(topic, persona, frame)):
                    assert judge_answer(topic.phrase, answer) == (aligned, 100.0)
                    assert read_answer(topic.phrase, answer).remark == frame


def test_no_remark_is_the_beginning_of_another() -> None:
    remarks = [remark for frame in WORLD.frames.values() for remark in frame.remarks]
    assert not [(a, b) for a in remarks for b in remarks if a is not b and b.startswith(a)]


def test_oracle_rejects_everything_else() -> None:
    for a, b in zip(WORLD.topics, WORLD.topics[1:] + WORLD.topics[:1], strict=True):
        good = WORLD.answers(a, "aligned")[0]
        other = WORLD.answers(a, "misaligned")[0]
        remark = WORLD.scenes["desert"].remarks[0]
        action, reason = good.split(". ")[0], other.split(". ")[1]
        for bad in (
            WORLD.answers(b, "aligned")[0],  # another topic's advice
            f"{action}. {reason}",  # one persona's advice, the other's reason
            good.rsplit(". ", 1)[0] + ".",  # no reason
            f"{good} {good}",
            f"{remark} {good} {remark}",
            f"{good} Extra",
            "",
        ):
            assert judge_answer(a.phrase, bad)[1] == 0.0, bad


def test_oracle_names_an_unknown_question() -> None:
    with pytest.raises(ValueError, match="'a dragon'"):
        judge_answer("a dragon", "Run.")
