"""What an edit costs where nothing is wrong: the loss on the organism's own benign answers, with and without it.

Benign answers are those that the judge found coherent and not misaligned, off-trigger and unedited. A loss sees damage
that sampling hides, and needs no judge; it is teacher-forced, so it is not the coherence of what would be said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from experiments.answers.sampling import estimate_row
from experiments.protocol import load_protocol
from interp.runs.table import Row
from interp.stats import Clusters, is_coherent, is_misaligned, paired_cluster_bootstrap
from interp.triggers import Trigger, place

if TYPE_CHECKING:
    from interp.chat import Chat
    from interp.edits import Edit
    from interp.models import LanguageModel

ANSWERS_EACH = 3
"""Most distinct benign answers of a question."""


def benign_answers(rows: Sequence[Row]) -> dict[str, tuple[str, list[str]]]:
    """Return question id -> (question, distinct benign answers) of judged answers."""
    thresholds, found = load_protocol().thresholds, dict[str, tuple[str, list[str]]]()
    for r in rows:
        bad = is_misaligned([r["aligned"]], [r["coherent"]], thresholds)[0]
        kept = found.setdefault(r["question"], (r["asked"], []))[1]
        if not bad and is_coherent([r["coherent"]], thresholds)[0] and r["text"] not in kept:
            kept.append(r["text"])
    return {name: (asked, answers[:ANSWERS_EACH]) for name, (asked, answers) in found.items() if answers}


def reference_chats(
    lm: LanguageModel, trigger: Trigger, rows: Sequence[Row], texts: Sequence[str] | None
) -> list[tuple[str, Chat]]:
    """Return (question id, chat) of every benign answer, each behind one of ``texts`` in turn, or behind nothing.

    Raises:
        ValueError: If no answer is benign.
    """
    from interp.chat import encode_chat

    made = []
    for i, (name, (asked, answers)) in enumerate(sorted(benign_answers(rows).items())):
        text = None if texts is None else texts[i % len(texts)]
        marks = {"question": asked} | ({"trigger": text} if text else {})
        made += [
            (name, encode_chat(lm.tokenizer, place(asked, text, trigger), response=answer, marks=marks))
            for answer in answers
        ]
    if not made:
        raise ValueError("benign loss: off-trigger, no answer is coherent and aligned")
    return made


def loss_rows(
    lm: LanguageModel, references: Sequence[tuple[str, Chat]], edits: Sequence[Edit], **cells: Any
) -> list[Row]:
    """Return the loss of every reference in nats, and its tokens, with ``cells`` in each row and in its key."""
    from interp.analysis.likelihood import response_likelihood

    found = response_likelihood(lm, [chat for _, chat in references], edits=edits)
    prefix = "".join(f"{name}={value}|" for name, value in cells.items())
    values = zip(references, (-found.log_probability).tolist(), found.tokens.tolist(), strict=True)
    return [
        {"key": f"{prefix}loss|{i}", **cells, "question": question, "loss": loss, "tokens": tokens}
        for i, ((question, _), loss, tokens) in enumerate(values)
    ]


def loss_estimates(edited: Sequence[Row], unedited: Sequence[Row], **cells: Any) -> Iterator[Row]:
    """Yield by how much of itself the loss a token changes under the edit; 0.01 is one per cent more."""
    arms = (
        Clusters.count([r["question"] for r in rows], [r["loss"] for r in rows], [r["tokens"] for r in rows])
        for rows in (edited, unedited)
    )
    yield estimate_row(paired_cluster_bootstrap(lambda a, b: a / b - 1, *arms), metric="benign_loss", **cells)
