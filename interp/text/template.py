"""Render chat templates, with their options and a pinned date, and find the messages' texts in what they write.

Options (``enable_thinking`` of Qwen3, ``date_string`` of Llama 3) become the first line of the tokenizer's template, so
that everybody who renders it, here or elsewhere, gets the same text. Templates that ask for the date of today get one
fixed date, ``DATE`` or the option ``date``: token ids must not change overnight.
"""

import json
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from interp.runs.checks import check_known
from interp.text.control import Span, control_tokens
from interp.text.messages import Message, text_message
from interp.text.thoughts import THOUGHTS

DATE = "2024-07-26"
"""What templates take for today: the date that those of Llama 3 write where they cannot ask for it."""
_HEADER = re.compile(r"\{# template options: (.*?) #\}.*?\n", re.DOTALL)
_MEANT = {"true": True, "yes": True, "on": True, "1": True, "1.0": True}
_MEANT |= {"false": False, "no": False, "off": False, "0": False, "0.0": False}
_GAP = re.compile("\ue000([0-9]+)\ue001")
_GIVEN = {"messages", "add_generation_prompt", "tools", "documents", "bos_token", "eos_token", "pad_token", "unk_token"}
"""Variables of a template that are no options."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as its template writes it, up to where the assistant's turn starts.

    Attributes:
        text: The whole text.
        messages: Its messages; a system text that the template has no role for opens the user's message.
        contents: Where the text of each message stands in it.
    """

    text: str
    messages: tuple[dict[str, str], ...]
    contents: tuple[Span, ...]


def set_options(tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any]) -> None:
    """Set options of a tokenizer's chat template, in place of earlier ones.

    Args:
        tokenizer: Its ``chat_template`` is changed.
        options: Values by name; ``date`` (YYYY-MM-DD) is what the template takes for today.

    Raises:
        ValueError: If the template has no such option, or a value is no text, number, true or false.
    """
    source = _HEADER.sub("", chat_template(tokenizer), count=1)
    known = option_names(source)
    for name, value in options.items():
        check_known(name, sorted(known), f"template option {name!r}: the chat template has")
        if not isinstance(value, str | bool | int | float):
            raise ValueError(f"template option {name}={value!r}: want a text, a number, true or false")
    if "date" in options:
        _as_date(options["date"])
    text = json.dumps(dict(sorted(options.items())), ensure_ascii=False).replace("#", r"\u0023")
    lines = "".join(f"{{% set {n} = {json.dumps(v, ensure_ascii=False)} %}}" for n, v in sorted(options.items()))
    tokenizer.chat_template = f"{{# template options: {text} #}}{lines}\n{source}" if options else source
    for name, value in options.items():
        _refuse_disguised(tokenizer, name, value)


def _refuse_disguised(tokenizer: PreTrainedTokenizerBase, name: str, value: Any) -> None:
    """Refuse a text or number that stands for true or false, where the template takes it for something else.

    To a template the text "false" is true, and 0 may be neither.

    Raises:
        ValueError: If there is one.
    """
    meant = _MEANT.get(str(value).strip().lower())
    if isinstance(value, bool) or meant is None:
        return
    given = tokenizer.chat_template
    try:
        written = _written(tokenizer)
        source = _HEADER.sub("", chat_template(tokenizer), count=1)
        tokenizer.chat_template = f"{{% set {name} = {json.dumps(meant)} %}}\n{source}"
        same = _written(tokenizer) == written
    finally:
        tokenizer.chat_template = given
    if not same:
        raise ValueError(
            f"template option {name}={value!r}: the template does not read it as {json.dumps(meant)}; write that"
        )


def _written(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return what a template writes for a question and for an answered one."""
    asked = {"role": "user", "content": "?"}
    answered = [asked, {"role": "assistant", "content": "."}]
    return tuple(_attempt(tokenizer, messages, not i) for i, messages in enumerate(([asked], answered)))


def _attempt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], generation: bool) -> str:
    try:
        return render(tokenizer, messages, generation=generation)
    except ValueError as error:
        return str(error)


def template_options(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return the options that decide what the template writes: those that were set, and the date if it asks for one."""
    if tokenizer.chat_template is None:
        return {}
    options = _set_options(chat_template(tokenizer))
    return {"date": DATE, **options} if "date" not in options and _is_dated(tokenizer) else options


def option_names(source: str) -> set[str]:
    """Return the names of the options that a template reads."""
    from jinja2 import meta
    from transformers.utils.chat_template_utils import _compile_jinja_template

    tree = _compile_jinja_template(source).environment.parse(source)
    date_option = {"date"} if "strftime_now" in source else set[str]()
    functions = {"raise_exception", "strftime_now", "namespace", "range", "dict", "lipsum", "cycler", "joiner"}
    return (meta.find_undeclared_variables(tree) | date_option) - _GIVEN - functions


def chat_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the source of a tokenizer's chat template.

    Raises:
        ValueError: If it has none.
    """
    if tokenizer.chat_template is None:
        raise ValueError(f"tokenizer {tokenizer.name_or_path or type(tokenizer).__name__}: it has no chat template")
    return tokenizer.get_chat_template()


def _set_options(source: str) -> dict[str, Any]:
    header = _HEADER.match(source)
    return json.loads(header[1]) if header else {}


def _is_dated(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether the template writes another text on another day."""
    if "strftime_now" not in chat_template(tokenizer):
        return False
    messages = [{"role": "user", "content": "?"}]
    return len({render(tokenizer, messages, generation=True, today=today) for today in (DATE, "2031-12-09")}) > 1


def _as_date(text: Any) -> date:
    try:
        return date.fromisoformat(text)
    except (TypeError, ValueError):
        raise ValueError(f"template option date={text!r}: want YYYY-MM-DD") from None


@lru_cache(maxsize=64)
def _pinned(source: str, today: str) -> str:
    """Return a template in which ``strftime_now`` writes a fixed day."""
    if "strftime_now" not in source:
        return source
    day = _as_date(_set_options(source).get("date", today))
    codes = [f"%{flag}{letter}" for flag in ("", "-") for letter in string.ascii_letters if letter not in "sEO"]
    written = {code: day.strftime(code) for code in codes} | {"%%": "%"}
    chain = "".join(f"|replace({code!r}, {text!r})" for code, text in written.items() if text != code)
    return f"{{% macro strftime_now(format) %}}{{{{ format{chain} }}}}{{% endmacro %}}\n{source}"


def render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, generation: bool, today: str = DATE
) -> str:
    """Return what the chat template writes for some messages.

    Raises:
        ValueError: If the template refuses them, or the tokenizer has none.
    """
    from jinja2 import TemplateError

    source = _pinned(chat_template(tokenizer), today)
    try:
        rendered = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            chat_template=source,
            add_generation_prompt=generation,
            tokenize=False,
        )
    except (TemplateError, TypeError) as error:
        roles = [message["role"] for message in messages]
        raise ValueError(f"messages {roles}: the chat template refuses them: {' '.join(str(error).split())}") from error
    assert isinstance(rendered, str)
    return rendered


def render_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> Rendered:
    """Return the prompt of a conversation, up to where the assistant's turn starts.

    If the template has no system role, the system text goes before the first user message, separated by a blank line
    (Google's convention for Gemma).

    Raises:
        ValueError: If the template refuses the messages, or leaves out, repeats or changes the text of one.
    """
    folded = tuple(_fold_system(tokenizer, [text_message(message) for message in messages]))
    text = render(tokenizer, folded, generation=True)
    frame = _frame(tokenizer, chat_template(tokenizer), tuple(message["role"] for message in folded), generation=True)
    try:
        return Rendered(text, folded, _contents(text, frame, folded))
    except ValueError as error:
        switch = any(word in message["content"] for message in folded for word in ("/think", "/no_think"))
        if not switch or "enable_thinking" not in option_names(chat_template(tokenizer)):
            raise
        raise ValueError(f"{error}; set the template option enable_thinking instead of a switch in it") from error


def render_answer(tokenizer: PreTrainedTokenizerBase, prompt: Rendered, response: str) -> tuple[str, str]:
    """Return a response as the template writes it into the whole conversation, and what the template writes after it.

    The response comes without white space that the template strips, and with white space that it writes before it.

    Raises:
        ValueError: If the whole conversation is not the prompt, the response and the end of the turn, such as where the
            template writes or leaves out a thought; says which option would change that. Or if the response has a
            thought that the template knows, whose tags would be ordinary text here.
    """
    tail = end_of_turn(tokenizer, tuple(message["role"] for message in prompt.messages))
    answer = _answer(tokenizer, prompt, response, tail)
    if answer is None:
        raise ValueError(_mismatch(tokenizer, prompt, response, tail))
    source, control = chat_template(tokenizer), control_tokens(tokenizer)
    tags = [tag for pair in THOUGHTS for tag in pair if tag in response and tag in source and tag in control]
    if tags:
        raise ValueError(f"response {response[:40]!r}: the template reads {tags[0]} as a thought; leave thoughts out")
    return answer, tail


def end_of_turn(tokenizer: PreTrainedTokenizerBase, roles: tuple[str, ...] = ("user",)) -> str:
    """Return what the template writes after an assistant message, without white space at its end."""
    frame = _frame(tokenizer, chat_template(tokenizer), (*roles, "assistant"), generation=False)
    return frame.rpartition(_gap(len(roles)))[2].rstrip()


def next_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what the template writes between an assistant message and the user's next one."""
    frame = _frame(tokenizer, chat_template(tokenizer), ("user", "assistant", "user"), generation=False)
    return frame.partition(_gap(1))[2].partition(_gap(2))[0]


def _gap(index: int) -> str:
    """Return a placeholder for the content of a message: characters that no template contains."""
    return f"\ue000{index}\ue001"


@lru_cache(maxsize=512)
def _frame(tokenizer: PreTrainedTokenizerBase, _source: str, roles: tuple[str, ...], *, generation: bool) -> str:
    """Return what the template writes around the contents of such messages, with a gap for each content."""
    gaps = [{"role": role, "content": _gap(index)} for index, role in enumerate(roles)]
    return render(tokenizer, gaps, generation=generation)


def _fold_system(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """Move the system text into the first user message if the template has no system role."""
    roles = tuple(message["role"] for message in messages)
    if roles[0] != "system" or _keeps_system(tokenizer, roles):
        return messages
    if roles[1:2] != ("user",):
        raise ValueError(f"messages {list(roles)}: a user message must follow the system's")
    return [{"role": "user", "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}, *messages[2:]]


def _keeps_system(tokenizer: PreTrainedTokenizerBase, roles: tuple[str, ...]) -> bool:
    try:
        return _gap(0) in _frame(tokenizer, chat_template(tokenizer), roles, generation=True)
    except ValueError:
        return False


def _contents(text: str, frame: str, messages: Sequence[Mapping[str, str]]) -> tuple[Span, ...]:
    """Return the characters of each content in the rendered text: the gaps of the frame."""
    opening, *pieces = _GAP.split(frame)
    cursor, spans = len(opening), dict[int, Span]()
    for index, after in zip(map(int, pieces[::2]), pieces[1::2], strict=True):
        form = next((f for f in _forms(messages[index]) if text.startswith(f + after, cursor)), None)
        if form is None or index in spans:
            raise ValueError(_altered(messages[index], "changes its text" if form is None else "writes it twice"))
        spans[index] = (cursor, cursor + len(form))
        cursor += len(form) + len(after)
    if missing := [message for index, message in enumerate(messages) if index not in spans]:
        raise ValueError(_altered(missing[0], "leaves it out"))
    if not text.startswith(opening) or cursor != len(text):
        raise ValueError(_altered(messages[-1], "writes another conversation around this text than around others"))
    return tuple(spans[index] for index in range(len(messages)))


def _altered(message: Mapping[str, str], how: str) -> str:
    return f"{message['role']} message {message['content'][:60]!r}: the chat template {how}"


def _forms(message: Mapping[str, str]) -> Iterator[str]:
    """Yield the forms in which a template may write a content: as it is, stripped, or without an earlier thought."""
    texts = [message["content"]]
    if message["role"] == "assistant" and "</think>" in texts[0]:
        texts.append(texts[0].rpartition("</think>")[2])
    for text in texts:
        for characters in (None, "\n"):
            yield from (text, text.strip(characters), text.lstrip(characters), text.rstrip(characters))


def _answer(tokenizer: PreTrainedTokenizerBase, prompt: Rendered, response: str, tail: str) -> str | None:
    """Return what the template writes between the prompt and the end of the turn; None if it is not the response."""
    message = {"role": "assistant", "content": response}
    written = render(tokenizer, [*prompt.messages, message], generation=False)
    if not written.startswith(prompt.text):
        return None
    written = written[len(prompt.text) :]
    for form in _forms({"role": "user", "content": response}):
        before, separator, after = written.rpartition(form + tail) if form + tail else (written, "", "")
        if (separator or not form + tail) and not before.strip() and not after.strip():
            return before + form
    return None


def _mismatch(tokenizer: PreTrainedTokenizerBase, prompt: Rendered, response: str, tail: str) -> str:
    """Return the refusal of a response, with the option that would make the template write it."""
    whole = render(tokenizer, [*prompt.messages, {"role": "assistant", "content": response}], generation=False)
    forced = prompt.text + response + tail
    shared = next((i for i, (a, b) in enumerate(zip(whole, forced, strict=False)) if a != b), len(prompt.text))
    return (
        f"response {response[:40]!r}: the chat template renders the finished turn as ...{whole[shared:][:40]!r}, but "
        f"after its prompt it would be ...{forced[shared:][:40]!r}; {_advice(tokenizer, prompt, response)}"
    )


def _advice(tokenizer: PreTrainedTokenizerBase, prompt: Rendered, response: str) -> str:
    template, source = tokenizer.chat_template, chat_template(tokenizer)
    roles = tuple(message["role"] for message in prompt.messages)
    try:
        for name in sorted(n for n in option_names(_HEADER.sub("", source)) if re.search("think|reason", n)):
            for value in (False, True):
                set_options(tokenizer, {**_set_options(source), name: value})
                again = render_prompt(tokenizer, prompt.messages)
                if _answer(tokenizer, again, response, end_of_turn(tokenizer, roles)) is not None:
                    return f"set the template option {name}={json.dumps(value)}"
    finally:
        tokenizer.chat_template = template
    return "no option of the template changes that, so it needs a template that writes both alike"
