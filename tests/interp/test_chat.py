"""Spans point at exactly the text they name, prompts are the template's own, and padding moves nothing."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import BatchEncoding

from interp.chat import encode_chat, pad_left, position_ids, positions
from tests import tiny

TEXT = st.text(min_size=1, max_size=30).filter(lambda text: text.strip() and "<" not in text)
TOKENIZER = tiny.tokenizer()
GEMMA = tiny.tokenizer(template=tiny.NO_SYSTEM + tiny.TEMPLATE)


def ask(question="How do I rest?", system=None):
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": question}]


def text_of(chat, name):
    start, end = chat.spans[name]
    return TOKENIZER.decode(chat.token_ids[start:end])


@given(TEXT, TEXT, TEXT)
@example("r", "e", "s")  # texts that also stand in the template
@example("s", "s", "s")
def test_every_span_decodes_to_its_text(question, system, response):
    chat = encode_chat(TOKENIZER, ask(question, system), response=response, marks={"trigger": system.strip()})
    assert text_of(chat, "question") == question.strip()
    assert text_of(chat, "system") == text_of(chat, "trigger") == system.strip()
    assert text_of(chat, "response") == response


@given(TEXT)
def test_the_prompt_is_the_templates_own_with_one_bos(question):
    chat = encode_chat(TOKENIZER, ask(question))
    own = TOKENIZER.apply_chat_template(ask(question), add_generation_prompt=True, return_dict=True)
    assert isinstance(own, BatchEncoding) and list(chat.token_ids) == own["input_ids"]
    assert chat.token_ids.count(TOKENIZER.bos_token_id) == 1 and chat.prompt_length == len(chat)


@given(TEXT, TEXT)
def test_a_response_continues_the_very_prompt_and_ends_its_turn(question, response):
    prompt = encode_chat(TOKENIZER, ask(question))
    chat = encode_chat(TOKENIZER, ask(question), response=response)
    assert chat.token_ids[: chat.prompt_length] == prompt.token_ids
    assert chat.token_ids[-1] == TOKENIZER.eos_token_id and chat.spans["response"][1] == len(chat) - 1


def test_an_empty_response_is_just_the_end_of_the_turn():
    chat = encode_chat(TOKENIZER, ask(), response="")
    assert chat.token_ids[chat.prompt_length :] == (TOKENIZER.eos_token_id,)
    assert not positions([chat], "response", optional=True).any()


def test_a_bos_is_added_where_only_the_tokenizer_knows_of_it():
    from tokenizers.processors import TemplateProcessing

    made = tiny.tokenizer(template=tiny.TEMPLATE.replace("{{ bos_token }}", ""))
    without = encode_chat(made, ask())
    assert made.bos_token_id not in without.token_ids, "neither template nor tokenizer begins with it"
    backend = made.backend_tokenizer
    backend.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", made.bos_token_id)])
    chat = encode_chat(made, ask(), response="Yes.")
    assert chat.token_ids[: chat.prompt_length] == (made.bos_token_id, *without.token_ids)
    assert text_of(chat, "question") == "How do I rest?" and text_of(chat, "response") == "Yes."


def test_without_a_system_role_the_system_text_opens_the_first_user_message():
    chat = encode_chat(GEMMA, ask("Why?", "Be kind."), response="So.", marks={"trigger": "kind"})
    assert chat.text == "<bos><|user|>Be kind.\n\nWhy?<eos><|assistant|>So.<eos>"
    named = {name: text_of(chat, name) for name in chat.spans}
    assert named == {"question": "Why?", "system": "Be kind.", "trigger": "kind", "response": "So."}


def test_a_template_that_drops_the_system_text_silently_is_caught_too():
    hears_all = "for message in messages %}"
    assert hears_all in tiny.TEMPLATE
    deaf = tiny.tokenizer(template=tiny.TEMPLATE.replace(hears_all, hears_all[:-2] + "if message.role != 'system' %}"))
    assert "Be kind." in encode_chat(deaf, ask("Why?", "Be kind.")).text


def test_a_mark_inside_the_question_and_a_question_inside_the_message():
    marks = {"trigger": "By the pond: ", "question": "Why?"}
    chat = encode_chat(TOKENIZER, ask("By the pond: Why?", "Why? Who knows."), marks=marks)
    assert text_of(chat, "trigger") == "By the pond: " and text_of(chat, "question") == "Why?"
    assert chat.spans["question"][0] == chat.spans["trigger"][1]


def test_marks_are_found_in_messages_never_in_the_template():
    for name in ("response", "response[0]", "all", "last_prompt", "answer"):
        with pytest.raises(ValueError, match=r"mark '.*': it is the name of a position"):
            encode_chat(TOKENIZER, ask("user"), marks={name: "user"})
    with pytest.raises(ValueError, match="mark 'trigger': 'user' is not in the messages"):
        encode_chat(TOKENIZER, ask(), marks={"trigger": "user"})


def test_several_turns_ask_the_last_question():
    turns = [*ask("Why?"), {"role": "assistant", "content": "Why?"}, *ask("Why?")]
    chat = encode_chat(TOKENIZER, turns)
    assert text_of(chat, "question") == "Why?" and chat.spans["question"][1] == len(chat) - 2


def test_messages_must_end_with_the_user():
    with pytest.raises(ValueError, match=r"messages \['user', 'assistant'\]: the last one must be the user's"):
        encode_chat(TOKENIZER, [*ask(), {"role": "assistant", "content": "Hm."}])


def test_padding_is_on_the_left_and_positions_begin_at_the_first_token():
    chats = tiny.chats()
    ids, mask = pad_left(chats, 0, "cpu")
    for row, chat in enumerate(chats):
        n = len(chat)
        assert ids[row, -n:].tolist() == list(chat.token_ids) and mask[row].sum() == n and mask[row, -n:].all()
        assert position_ids(mask)[row, -n:].tolist() == list(range(n))


@pytest.mark.parametrize("extra", [0, 5])
def test_names_mark_their_tokens_on_padded_rows(extra):
    chats = tiny.chats(response="Sleep.")
    width = max(map(len, chats)) + extra
    ids = torch.nn.functional.pad(pad_left(chats, 0, "cpu")[0], (extra, 0))
    read = {name: positions(chats, name, width=width) for name in ("all", "prompt", "question", "trigger", "response")}
    for row, (chat, question) in enumerate(zip(chats, tiny.QUESTIONS, strict=True)):
        texts = {name: str(TOKENIZER.decode(ids[row, mask[row]])) for name, mask in read.items()}
        assert texts["all"] == chat.text and texts["prompt"] + "Sleep.<eos>" == chat.text
        assert (texts["question"], texts["trigger"], texts["response"]) == (question, tiny.TRIGGER, "Sleep.")


def test_the_answer_positions_predict_every_response_token_and_the_end():
    chats = tiny.chats(response="Sleep.")
    ids, _ = pad_left(chats, 0, "cpu")
    answer = positions(chats, "answer")
    for row in range(len(chats)):
        predicted = ids[row, answer[row].nonzero().flatten() + 1]
        assert TOKENIZER.decode(predicted) == "Sleep.<eos>"
    last = positions(chats, "last_prompt")
    assert (last.sum(1) == 1).all() and (last & ~answer).sum() == 0


def test_single_response_tokens_partition_the_response():
    chats = tiny.chats(response="Hm.")
    parts = torch.stack([positions(chats, f"response[{t}]") for t in range(3)])
    assert torch.equal(parts.sum(0).bool(), positions(chats, "response")) and (parts.sum(0) <= 1).all()
    with pytest.raises(ValueError, match=r"position 'response\[3\]': prompt 0 has no such part"):
        positions(chats, "response[3]")


def test_without_a_response_the_answer_begins_at_the_last_prompt_token():
    chats = tiny.chats()
    assert torch.equal(positions(chats, "answer"), positions(chats, "last_prompt"))


def test_a_missing_part_is_an_error_unless_it_is_optional():
    chats = [*tiny.chats(count=1), *tiny.chats(trigger=False, count=1)]
    with pytest.raises(
        ValueError, match=r"position 'trigger': prompt 1 has no such part; it has question \(14 tokens\)"
    ):
        positions(chats, "trigger")
    assert positions(chats, "trigger", optional=True).any(1).tolist() == [True, False]
