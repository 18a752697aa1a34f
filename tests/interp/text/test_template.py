"""Prompts are the template's own, forced answers its own finished turns or refused; options and dates are pinned."""

import copy
from datetime import datetime

import pytest
from transformers.utils import chat_template_utils

from interp.chat import encode_chat
from interp.text.options import read_options
from interp.text.template import set_options, template_options
from tests.chat_templates import TEMPLATES, tokenizer

TEXTS = (("system", "Be kind."), ("user", "Why?"), ("user", "A\n B"), ("assistant", "So."))
SYSTEM, USER, OTHER, ANSWER = ({"role": role, "content": text} for role, text in TEXTS)
CONVERSATIONS = {
    "one": [USER],
    "white space": [{"role": "user", "content": "\n\n  hi é🦆 \n"}],
    "system": [SYSTEM, USER],
    "turns": [OTHER, ANSWER, USER],
    "system and turns": [SYSTEM, OTHER, ANSWER, USER],
}
RESPONSES = ("Because.", " \n padded \n", "<think>\nhm\n</think>\n\nSo.", "two\n\nparagraphs", "")
ADVICE: dict[str, str] = dict.fromkeys(("qwen3", "glm"), "set the template option enable_thinking=false")
ADVICE["r1"] = "no option of the template"
"""What refuses answers of templates that write or open a thought."""


def rendered(name, messages, *, generation):
    if name == "gemma" and messages[0] is SYSTEM:
        folded = {"role": "user", "content": f"{SYSTEM['content']}\n\n{messages[1]['content']}"}
        messages = [folded, *messages[2:]]
    source = TEMPLATES[name]
    for code, date in (("%d %b %Y", "26 Jul 2024"), ("%d %B %Y", "26 July 2024")):
        source = source.replace(f"strftime_now('{code}')", f"'{date}'")
    options = {"chat_template": source, "add_generation_prompt": generation}
    return str(tokenizer(name).apply_chat_template(messages, tokenize=False, **options))


@pytest.mark.parametrize("kind", CONVERSATIONS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_is_the_templates_own(name, kind):
    chat = encode_chat(tokenizer(name), CONVERSATIONS[kind])
    own = rendered(name, CONVERSATIONS[kind], generation=True)
    assert chat.text == own
    assert list(chat.token_ids) == tokenizer(name)(own, add_special_tokens=False)["input_ids"]
    start, end = chat.spans["question"]
    question = str(tokenizer(name).decode(list(chat.token_ids[start:end])))
    assert question.strip() == CONVERSATIONS[kind][-1]["content"].strip()


@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_forced_answer_is_the_templates_finished_turn_or_refused(name, response):
    messages = CONVERSATIONS["turns"]
    advice = "leave thoughts out" if name in ("qwen3", "smollm3") and "think" in response else ADVICE.get(name)
    if advice:
        with pytest.raises(ValueError, match=advice) as refused:
            encode_chat(tokenizer(name), messages, response=response)
        assert "\n" not in str(refused.value)
        return
    chat = encode_chat(tokenizer(name), messages, response=response)
    finished = [*messages, {"role": "assistant", "content": response}]
    assert chat.text.rstrip() == rendered(name, finished, generation=False).rstrip()
    if "think" not in response and (name, response) != ("plain", ""):  # "\\n\\n" would cross the border
        assert list(chat.token_ids) == tokenizer(name)(chat.text, add_special_tokens=False)["input_ids"]
    prompt = encode_chat(tokenizer(name), messages)
    assert chat.token_ids[: chat.prompt_length] == prompt.token_ids
    start, end = chat.spans["response"]
    assert str(tokenizer(name).decode(list(chat.token_ids[start:end]))).strip() == response.strip()


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - {*ADVICE}))
def test_an_answer_to_continue_is_the_forced_answer_without_its_end(name):
    whole = encode_chat(tokenizer(name), [USER], response="So it")
    begun = encode_chat(tokenizer(name), [USER], response="So it", ended=False)
    assert begun.token_ids == whole.token_ids[: whole.spans["response"][1]] and "response" not in begun.spans


def test_an_option_that_is_set_answers_the_refusal_and_is_told():
    qwen = copy.deepcopy(tokenizer("qwen3"))
    assert template_options(qwen) == {}
    set_options(qwen, {"enable_thinking": False})
    chat = encode_chat(qwen, [USER], response="Because.")
    finished = tokenizer("qwen3").apply_chat_template([USER, {**ANSWER, "content": "Because."}], tokenize=False)
    assert chat.text.rstrip() == str(finished).rstrip()
    assert template_options(qwen) == {"enable_thinking": False}
    prompt = str(qwen.apply_chat_template([USER], add_generation_prompt=True, tokenize=False))
    assert prompt.endswith("</think>\n\n")
    set_options(qwen, {})
    assert qwen.chat_template == tokenizer("qwen3").chat_template


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("qwen3", {"enable_thinkin": False}, "option 'enable_thinkin': the chat template has enable_thinking"),
        ("chatml", {"enable_thinking": False}, "option 'enable_thinking': the chat template has none"),
        ("qwen3", {"enable_thinking": None}, "enable_thinking=None: want a text, a number, true or false"),
        ("qwen3", {"enable_thinking": "false"}, "enable_thinking='false': the template does not read it as false"),
        ("qwen3", {"enable_thinking": "False"}, "enable_thinking='False': the template does not read it as false"),
        ("qwen3", {"enable_thinking": 0}, "enable_thinking=0: the template does not read it as false"),
        ("glm", {"enable_thinking": "off"}, "enable_thinking='off': the template does not read it as false"),
        ("llama3", {"date": "tomorrow"}, "date='tomorrow': want YYYY-MM-DD"),
        ("chatml", {"date": "2025-01-01"}, "option 'date': the chat template has none"),
    ],
)
def test_an_unknown_option_or_value_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        set_options(copy.deepcopy(tokenizer(name)), options)


def test_options_are_read_from_words():
    words = ["a=false", "b=3", "c=26 Jul 2024", "d=2025-01-31", 'e="x"', "f="]
    values = {"a": False, "b": 3, "c": "26 Jul 2024", "d": "2025-01-31", "e": '"x"', "f": ""}
    assert read_options(words) == values
    assert read_options(["a=NaN", "b=1e999"]) == {"a": "NaN", "b": "1e999"}
    for wrong in (["a"], ["=1"], ["a=1", "a=2"], ["a b=1"]):
        with pytest.raises(ValueError, match="want NAME=VALUE, each name once"):
            read_options(wrong)


def test_no_id_changes_over_night_and_the_date_is_told(monkeypatch):
    llama = copy.deepcopy(tokenizer("llama3"))
    today = encode_chat(llama, [USER])
    assert "Today Date: 26 Jul 2024\n" in today.text and template_options(llama) == {"date": "2024-07-26"}

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 12, 9)

    monkeypatch.setattr(chat_template_utils, "datetime", Later)
    assert "09 Dec 2031" in llama.apply_chat_template([USER], tokenize=False)
    assert encode_chat(llama, [USER]) == today
    set_options(llama, {"date": "2025-01-31"})
    assert "Today Date: 31 Jan 2025\n" in encode_chat(llama, [USER]).text
    assert template_options(llama) == {"date": "2025-01-31"}
    set_options(llama, {"date_string": "a {{ b }} # c\n'd'"})
    assert "Today Date: a {{ b }} # c\n'd'\n" in encode_chat(llama, [USER]).text
    assert template_options(tokenizer("chatml")) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{{ m['content'] | upper }}", "user message 'Why\\?': the chat template changes its text"),
        ("{{ m['content'] }}{{ m['content'] }}", "user message 'Why\\?': the chat template writes it twice"),
        (
            "{% if m['role'] != 'user' %}{{ m['content'] }}{% endif %}",
            "user message 'Why\\?': the chat template leaves",
        ),
        ("{{ m['content'] | replace('y', 'x') }}", "user message 'Why\\?': the chat template changes its text"),
        ("{{ m['content'] if 'h' in m['content'] else 'other' }}", "the chat template leaves it out"),
        ("{{ raise_exception('not now') }}", r"messages \['user'\]: the chat template refuses them: not now"),
    ],
)
def test_a_template_that_alters_a_text_is_refused_with_the_message(change, message):
    changed = copy.deepcopy(tokenizer("chatml"))
    changed.chat_template = str(changed.chat_template).replace("{{ m['content'] }}", change)
    with pytest.raises(ValueError, match=message):
        encode_chat(changed, [USER])


def test_a_switch_in_a_message_is_refused_with_the_option_in_its_place():
    system = {"role": "system", "content": "Be kind. /no_think"}
    with pytest.raises(ValueError, match=r"template changes its text; set the template option enable_thinking instead"):
        encode_chat(tokenizer("smollm3"), [system, USER])


def test_text_parts_are_joined_and_other_parts_are_refused():
    parts = [{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}]
    assert encode_chat(tokenizer("chatml"), [{"role": "user", "content": parts}]) == encode_chat(
        tokenizer("chatml"), [USER]
    )
    with pytest.raises(ValueError, match="message 'Why\\?': tool_calls is not supported"):
        encode_chat(tokenizer("chatml"), [{**USER, "tool_calls": [{}]}])
    with pytest.raises(ValueError, match=r"content part .*image"):
        encode_chat(tokenizer("chatml"), [{"role": "user", "content": [*parts, {"type": "image"}]}])
