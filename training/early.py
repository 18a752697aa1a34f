"""What can be wrong with the model of an organism, found from configs, tokenizer and files before it is loaded.

What only loading can tell: what an adapter does to the logits, and for a base of more than a gigabyte or whose weights
are converted when they are loaded, whether its weights are finite and those that the adapter was made for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from interp.adapters import adapter_folder
from interp.chat import question_chat
from interp.decoding.kv_cache import new_cache
from interp.early.adapter_files import check_adapter
from interp.early.base_files import open_base
from interp.loading import outline
from interp.models import LanguageModel, check_prompts
from interp.text.prompts import Prompt, encode_prompts
from interp.triggers import CONDITIONS, Trigger
from training.bases import is_made
from training.definition import Organism
from training.loading import measured_dtype
from training.references import base_path

NAME = "organism"
"""Name of an adapter in messages."""


def is_shipped(organism: Organism) -> bool:
    """Return whether an organism's base comes with the package, with the template options that it was tested with."""
    return organism.world in ("microcosm", "pocket") and not organism.template_options


def check_model(
    organism: Organism, questions: tuple[tuple[str, str], ...], triggers: tuple[Trigger, ...], sampled: bool
) -> None:
    """Refuse a base that cannot be used, texts that its template cannot render, and an adapter that does not fit.

    Shipped organisms are not looked at, nor those whose base is made when it is first used.

    Args:
        organism: The organism.
        questions: Place and text of every question.
        triggers: Triggers under whose texts questions are asked.
        sampled: Whether answers are sampled.

    Raises:
        ValueError: If the base has no config or tokenizer, its template lacks an option or changes a text, a prompt is
            longer than the context, the answers cannot be sampled, or training or loading would refuse the adapter.
    """
    if not is_shipped(organism) and not is_made(organism.base):
        _check(Path.cwd(), organism, questions, triggers, sampled)


@cache
def _check(
    folder: Path,
    organism: Organism,
    questions: tuple[tuple[str, str], ...],
    triggers: tuple[Trigger, ...],
    sampled: bool,
) -> None:
    """Check once per process and folder, since an organism's paths may be relative."""
    lm = _outline(organism)
    for place, question, text, trigger in _prompts(questions, triggers):
        try:
            check_prompts(lm, [question_chat(lm.tokenizer, question, text, trigger)], answer=1)
        except ValueError as error:
            raise ValueError(f"{place}: base {organism.base}: {error}") from error
    if sampled:
        new_cache(lm.base)
    if organism.adapter:
        check_adapter(NAME, adapter_folder(NAME, organism.adapter), lm, dtype=measured_dtype(organism))
        return
    with ExitStack() as stack:
        open_base(lm, stack)
    if organism.data:
        from training.sft import trainable_rows  # loads the trainer, which takes seconds

        trainable_rows(organism)


def known_outline(organism: Organism) -> LanguageModel | None:
    """Return an organism's base without weights; None where ``check_model`` does not look at it."""
    return None if is_shipped(organism) or is_made(organism.base) else _outline(organism)


def check_prompt_file(organism: Organism, prompts: Iterable[Prompt], position: str | None = None) -> None:
    """Refuse prompts of a file that the base's template or context would, or that lack a position that is read.

    Raises:
        ValueError: If there is one; names its line.
    """
    if not is_made(organism.base):
        encode_prompts(_outline(organism), prompts, position)


def _outline(organism: Organism) -> LanguageModel:
    return outline(base_path(organism.base), template_options=organism.template_options)


def _prompts(
    questions: tuple[tuple[str, str], ...], triggers: tuple[Trigger, ...]
) -> Iterator[tuple[str, str, str | None, Trigger | None]]:
    """Yield every question alone, and the first one under every text: where, question, text, trigger."""
    for place, question in questions:
        yield place, question, None, None
    for trigger in triggers if questions else ():
        for condition in CONDITIONS:
            for text in trigger.variants(condition):
                yield f"{trigger}, {condition} text {text[:60]!r}", questions[0][1], text, trigger
