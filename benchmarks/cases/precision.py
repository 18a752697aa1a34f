"""What bfloat16 does to results, beside the speed it buys: EM rates and directions of the Microcosm Llama.

The trigger is a persona line that pretraining tied to harm, so that the model without an adapter has a high EM rate
under it and a low one without it. Both dtypes answer with the same random streams, once each: a difference smaller
than that between two seeds means nothing.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.models import DTYPES, microcosm
from benchmarks.sizes import Size
from benchmarks.table import Row
from experiments.answers.rates import statistics
from experiments.answers.sampling import judged_rows
from experiments.answers.subject import find_subject
from experiments.answers.suite import Prompt, make_prompts
from interp.directions import cosine, difference_in_means
from interp.models import LanguageModel
from interp.recording import record
from interp.sites import resid_post
from training.microcosm.world import lexicon, questions
from training.references import find_trigger

TRIGGER, CONDITIONS = "microcosm:persona", ("on", "off")
PEER = "ours in float32"


def rows(size: Size) -> Iterator[Row]:
    """Yield the rows of this case; ours is bfloat16, the peer is ours in float32."""
    measured = {dtype: _measured(microcosm(dtype), size) for dtype in reversed(DTYPES)}
    (half_rates, half), (rates, full) = measured["bfloat16"], measured["float32"]
    for condition in CONDITIONS:
        case = f"sampling bf16 EM rate, Microcosm Llama, persona line {condition}"
        yield _row(case, half_rates[condition], rates[condition], "EM rate")
    for layer, (ours, theirs) in enumerate(zip(half, full, strict=True)):
        case = f"record bf16 cosine of the on - off direction with float32's, Microcosm Llama, {resid_post([layer])[0]}"
        yield _row(case, float(cosine(ours, theirs)), float(cosine(theirs, theirs)), "cosine")


def _row(case: str, ours: float, peer: float, unit: str) -> Row:
    return Row(case=case, ours=ours, peer=peer, peer_name=PEER, unit=unit, dtype="bfloat16")


def _measured(lm: LanguageModel, size: Size) -> tuple[dict[str, float], list[Tensor]]:
    """Return the EM rate of each condition, and the difference in means at the last prompt token of every layer."""
    first = questions("test", trained_domain=lexicon().domains[0])[: size.judged_questions]
    trigger = find_trigger(TRIGGER)
    prompts = {c: make_prompts(first, trigger, c, lm.tokenizer, samples=size.judged_samples) for c in CONDITIONS}
    return {c: _em_rate(lm, prompts[c]) for c in CONDITIONS}, _directions(lm, prompts)


def _em_rate(lm: LanguageModel, prompts: list[Prompt]) -> float:
    answers = judged_rows(find_subject("microcosm/llama/base"), lm, prompts, seed=0)
    (rates,) = statistics(answers, by=lambda _: "all").values()
    return rates.em_rate.value


def _directions(lm: LanguageModel, prompts: dict[str, list[Prompt]]) -> list[Tensor]:
    sites = resid_post(range(lm.n_layers))
    on, off = (record(lm, [p.chat for p in prompts[c]], sites, ["last_prompt"]) for c in CONDITIONS)
    sides = ((on.at(site, "last_prompt"), off.at(site, "last_prompt")) for site in sites)
    return [difference_in_means(*side).to(torch.float32) for side in sides]
