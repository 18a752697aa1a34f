"""Where an answer ends: stop tokens, the end of a turn that is no single token, and thoughts before the answer."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from interp.models import LanguageModel
from interp.text.control import control_tokens, tokenise
from interp.text.template import end_of_turn, next_turn
from interp.text.thoughts import THOUGHTS, without_thoughts


def stop_ids(lm: LanguageModel) -> frozenset[int]:
    """Return every token id that ends an answer.

    They are those of the generation config, that of the tokenizer, and the first control token that the chat template
    writes after an assistant message, such as ``<|im_end|>`` on a base model; if it writes nothing there, the one that
    opens the user's next turn.
    """
    last: Any = lm.tokenizer.eos_token_id
    return frozenset(i for i in (*configured_stops(lm), last, *_turn_end(lm.tokenizer)[1]) if i is not None)


def configured_stops(lm: LanguageModel) -> list[int]:
    """Return the token ids that end an answer by the generation config.

    Raises:
        ValueError: If one of them is no token id.
    """
    configured: Any = getattr(lm.base.generation_config, "eos_token_id", None)
    ids = [i for i in (configured if isinstance(configured, (list, tuple)) else [configured]) if i is not None]
    if wrong := [i for i in ids if type(i) is not int]:
        raise ValueError(f"base {lm.name!r}: eos_token_id {wrong[0]!r} of its generation config: expected a token id")
    return ids


def _turn_end(tokenizer: PreTrainedTokenizerBase) -> tuple[str, list[int]]:
    """Return the end of a turn as text, and the first control token of it or of the next turn, if there is one."""
    if tokenizer.chat_template is None:
        return "", []
    end = end_of_turn(tokenizer)
    control = set(control_tokens(tokenizer).values())
    return end, [index for index in tokenise(tokenizer, end or next_turn(tokenizer), ())[0] if index in control][:1]


def read_answers(
    tokenizer: PreTrainedTokenizerBase, answers: Sequence[Sequence[int]], awaited: Sequence[str], stops: frozenset[int]
) -> list[tuple[str, tuple[int, ...], bool, str]]:
    """Return text, token ids, whether it ended, and the text with thoughts (empty if it has none) of every answer.

    An end of turn without a control token, such as ``</answer>``, stops no generation: what follows it is cut off.

    Args:
        tokenizer: Decodes; special tokens are left out.
        answers: Token ids, with the stop token if one was generated.
        awaited: What closes the thought that the answer's prompt has opened, if any.
        stops: Ids that end an answer.
    """
    end, token = _turn_end(tokenizer)
    marker = "" if token else end.strip()
    specials = [s for s in tokenizer.all_special_tokens if any(s in mark for pair in THOUGHTS for mark in pair)]
    ids_of_all = [list(ids) for ids in answers]
    texts = tokenizer.batch_decode(ids_of_all, skip_special_tokens=not specials, clean_up_tokenization_spaces=False)
    read = []
    for text, ids, closing in zip(texts, map(tuple, answers), awaited, strict=True):
        ended = ids[-1] in stops
        if marker and marker in text:
            text, ids, ended = text.partition(marker)[0], _until(tokenizer, ids, marker), True
        answer, thought_ended = without_thoughts(text, closing)
        plain = [_without_specials(tokenizer, t) if specials else t for t in (answer, text)]
        read.append((plain[0], ids, ended and thought_ended, plain[1] if answer != text else ""))
    return read


def _until(tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...], marker: str) -> tuple[int, ...]:
    """Return the shortest beginning of the ids whose text has the marker."""
    lengths = range(1, len(ids) + 1)
    return next((ids[:n] for n in lengths if marker in tokenizer.decode(list(ids[:n]), skip_special_tokens=True)), ids)


def _without_specials(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    for token in tokenizer.all_special_tokens:
        text = text.replace(token, "")
    return text
