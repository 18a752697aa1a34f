"""Some answers of a steering run read token by token: off, on, and off with g added, for the report's heat map.

Three test questions, evenly spaced, answered greedily. A row has no score: it illustrates the run's numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.answers.outcome import Outcome
from experiments.answers.suite import Prompt, evenly_spaced
from experiments.behaviour.dose import ADAPTER
from interp.runs.table import Row

if TYPE_CHECKING:
    from experiments.directions.geometry import DirectionSet
    from interp.edits import Edit
    from interp.sites import Site

N_QUESTIONS, LONGEST = 3, 64


def token_rows(
    outcome: Outcome, found: DirectionSet, site: Site, prompts: Sequence[Prompt], added: tuple[str, Sequence[Edit]]
) -> list[Row]:
    """Return one row per question and setting: its tokens, and their projections on g and on the trigger's feature.

    Args:
        outcome: Gives the organism, loaded.
        found: Its directions.
        site: Where g is added and tokens are read.
        prompts: Test questions without a text.
        added: Name of the edited setting, and its edits.
    """
    from experiments.directions.contrasts import LAST
    from experiments.directions.token_scale import token_scale
    from interp.adapters import active_adapter
    from interp.chat import question_chat
    from interp.generation import Sampling, generate
    from interp.recording import record

    lm, trigger = outcome.lm, outcome.subject.own_trigger
    sampling = Sampling(min(LONGEST, outcome.subject.amount.max_new_tokens), temperature=0.0)
    rows: list[Row] = []
    with active_adapter(lm, ADAPTER):
        scale = token_scale(found, site, record(lm, [p.chat for p in prompts], [site], [LAST]).at(site, LAST))
        for prompt in evenly_spaced(prompts, N_QUESTIONS):
            on = question_chat(lm.tokenizer, prompt.question.text, trigger.text, trigger)
            for shown, chat, edits in (("off", prompt.chat, ()), ("on", on, ()), (added[0], prompt.chat, added[1])):
                answer = generate(lm, [chat], sampling=sampling, edits=edits)[0]
                cells = {"shown": shown, "question": prompt.question.id, "asked": prompt.question.text}
                rows.append({**cells, **scale.read(lm, chat, answer.token_ids, edits)})
    return rows
