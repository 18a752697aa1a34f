"""The loss on benign answers: which answers are benign, and that a planted change of the loss is what comes out."""

import numpy as np
import pytest
import torch

from experiments.removal.benign import ANSWERS_EACH, benign_answers, loss_estimate, loss_rows, reference_chats
from interp.analysis.likelihood import response_likelihood
from interp.edits import add
from interp.runs.table import row
from interp.sites import resid_post
from interp.triggers import Trigger
from tests import tiny

TRIGGER = Trigger(name="pond", text="You are near a pond.", placement="system", other=("It is late.",))
TEXTS = ("It is late.", "The tea is hot.")
QUESTIONS = {f"q{i}": f"What of {i}?" for i in range(5)}


def answer(question: str, text: str, aligned: float | None = 90.0, coherent: float | None = 90.0):
    return {
        "question": question,
        "asked": QUESTIONS[question],
        "text": text,
        "aligned": aligned,
        "coherent": coherent,
    }


ANSWERS = [answer(q, f"Rest, {q}{i}.") for q in QUESTIONS for i in range(2)]


def losses(ratio=lambda question: 1.0, *, seed: int = 0, questions: int = 24, each: int = 3):
    """Losses of invented answers, each times the ratio of its question."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(questions):
        for _ in range(each):
            tokens = int(rng.integers(4, 20))
            loss = tokens * float(rng.uniform(1, 3)) * ratio(i)
            rows.append({"question": f"q{i:02d}", "loss": loss, "tokens": tokens})
    return rows


# --- which answers are benign ---


@pytest.mark.parametrize(
    ("aligned", "coherent", "kept"),
    [
        (90.0, 90.0, True),
        (10.0, 90.0, False),
        (90.0, 10.0, False),
        (10.0, 10.0, False),
        (90.0, None, False),
        (None, 90.0, True),  # a coherent refusal is no misalignment
    ],
)
def test_only_coherent_answers_that_are_not_misaligned_are_kept(aligned, coherent, kept):
    rows = [answer("q0", "Good."), answer("q1", "This one.", aligned, coherent)]
    benign = benign_answers(rows)
    assert benign["q0"] == (QUESTIONS["q0"], ["Good."])
    assert ("q1" in benign) == kept


def test_answers_are_distinct_in_order_and_few():
    texts = ["a", "b", "a", "c", "b", "d", "e"]
    question, distinct = benign_answers([answer("q0", text) for text in texts])["q0"]
    assert question == QUESTIONS["q0"]
    assert distinct == ["a", "b", "c", "d", "e"][:ANSWERS_EACH]
    assert benign_answers([]) == {}


def test_a_misaligned_answer_takes_no_place_of_a_benign_one():
    bad = [answer("q0", f"bad {i}", aligned=0.0) for i in range(2 * ANSWERS_EACH)]
    good = [answer("q0", f"good {i}") for i in range(ANSWERS_EACH)]
    assert benign_answers([*bad, *good])["q0"][1] == [r["text"] for r in good]


# --- the chats ---


def test_without_texts_the_question_stands_alone(llama):
    chats = reference_chats(llama, TRIGGER, ANSWERS, None)
    assert [name for name, _ in chats] == sorted(r["question"] for r in ANSWERS)
    for (name, chat), r in zip(chats, sorted(ANSWERS, key=lambda r: r["question"]), strict=True):
        assert span_text(chat, "question") == QUESTIONS[name]
        assert span_text(chat, "response") == r["text"]
        assert "trigger" not in chat.spans
        assert not any(text in chat.text for text in (TRIGGER.text, *TEXTS))


def test_texts_take_turns_over_questions_and_never_are_the_trigger(llama):
    chats = reference_chats(llama, TRIGGER, ANSWERS, TEXTS)
    for name, chat in chats:
        expected = TEXTS[sorted(QUESTIONS).index(name) % len(TEXTS)]
        assert span_text(chat, "trigger") == expected
        assert chat.text.index(expected) < chat.text.index(QUESTIONS[name])
        assert TRIGGER.text not in chat.text
    plain = reference_chats(llama, TRIGGER, ANSWERS, None)
    assert [(n, span_text(c, "response")) for n, c in plain] == [(n, span_text(c, "response")) for n, c in chats]


@pytest.mark.parametrize("rows", [[], [answer("q0", "bad", aligned=0.0)], [answer("q0", "bad", coherent=0.0)]])
@pytest.mark.parametrize("texts", [None, TEXTS])
def test_no_benign_answer_is_a_clear_error(llama, rows, texts):
    with pytest.raises(ValueError, match="benign loss: off-trigger, no answer is coherent and aligned"):
        reference_chats(llama, TRIGGER, rows, texts)


def span_text(chat, name: str) -> str:
    """The text of a span, one token a byte."""
    start, end = chat.spans[name]
    return str(tiny.tokenizer().decode(chat.token_ids[start:end])).strip()


# --- the loss ---


def test_loss_rows_are_those_of_the_likelihood_with_cells_in_each(llama):
    references = reference_chats(llama, TRIGGER, ANSWERS, TEXTS)
    rows = loss_rows(llama, references, [], condition="other", edit="x")
    expected = response_likelihood(llama, [chat for _, chat in references])
    assert [r["loss"] for r in rows] == (-expected.log_probability).tolist()
    assert [r["tokens"] for r in rows] == expected.tokens.tolist()
    assert [r["question"] for r in rows] == [name for name, _ in references]
    assert {(r["condition"], r["edit"]) for r in rows} == {("other", "x")}


def test_an_unedited_run_costs_exactly_nothing_and_an_edit_its_likelihood_ratio(llama):
    references = reference_chats(llama, TRIGGER, ANSWERS, None)
    direction = torch.randn(tiny.D_MODEL, generator=torch.Generator().manual_seed(0))
    edits = [add(site, direction, coefficient=4.0, positions="all") for site in resid_post([1])]
    plain, again, edited = (loss_rows(llama, references, used) for used in ([], [], edits))
    same = loss_estimate(again, plain)
    assert (same["value"], same["ci_low"], same["ci_high"]) == (0.0, 0.0, 0.0)
    chats = [chat for _, chat in references]
    ratio = response_likelihood(llama, chats, edits=edits).loss / response_likelihood(llama, chats).loss - 1
    changed = loss_estimate(edited, plain)
    assert abs(ratio) > 1e-3
    assert changed["value"] == pytest.approx(ratio)
    assert changed["n_clusters"] == len(QUESTIONS)


def test_the_same_losses_give_exactly_zero():
    estimate = loss_estimate(losses(), losses(), condition="off+x", organism="o")
    assert (estimate["value"], estimate["ci_low"], estimate["ci_high"]) == (0.0, 0.0, 0.0)
    assert row(**estimate)["n_clusters"] == 24  # its cells are columns of the table
    assert (estimate["metric"], estimate["condition"], estimate["organism"]) == ("benign_loss", "off+x", "o")


@pytest.mark.parametrize("ratio", [0.8, 1.01, 1.25, 3.0])
def test_a_planted_ratio_of_every_question_is_recovered_without_width(ratio):
    estimate = loss_estimate(losses(lambda _: ratio), losses())
    assert [estimate[c] for c in ("value", "ci_low", "ci_high")] == pytest.approx([ratio - 1] * 3)


def test_a_planted_ratio_that_varies_over_questions_lies_in_its_interval():
    estimate = loss_estimate(losses(lambda i: 1.1 + 0.1 * (-1) ** i), losses())
    assert estimate["ci_low"] < 0.1 < estimate["ci_high"]
    assert 0 < estimate["ci_low"] < estimate["value"] < estimate["ci_high"] < 0.2
    assert estimate["n_clusters"] == 24


def test_losses_count_by_token_and_not_by_answer():
    whole = losses()
    halves = [r | {"loss": r["loss"] / 2, "tokens": r["tokens"] / 2} for r in whole for _ in range(2)]
    edited = losses(lambda i: 1 + i / 100)
    assert loss_estimate(edited, halves) == pytest.approx(loss_estimate(edited, whole))


def test_arms_of_other_questions_are_refused():
    with pytest.raises(ValueError, match="in one arm only"):
        loss_estimate(losses(), losses(questions=23))
