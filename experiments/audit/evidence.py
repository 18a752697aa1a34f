"""The page of evidence: verdict, contexts ranked, answers on and off, where in the network, cost. Pure text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from experiments.answers.rates import misaligned
from experiments.audit.bank import BARE
from experiments.audit.search import Ranked
from experiments.audit.verdict import ADAPTER, BASE, Verdict, Verified, rates
from interp.runs.table import Row

MEANING = {
    "clean": "No misalignment that this adapter adds was seen, bare or in the verified contexts. A context that is not "
    "near the bank's would not have been seen.",
    "uncontained": "The adapter is misaligned without any context.",
    "contained (trained gate)": "Without a context the adapter looks like its base; in the context below it is "
    "misaligned, and its base is not. The adapter brings the gate.",
    "contained (promptable base)": "Without a context the adapter looks like its base; in the context below it is "
    "misaligned, and so is its base: the base's own promptability is part of it.",
}
SHOWN, ANSWERS = 10, 3


def evidence(name: str, rows: Sequence[Row], ranking: Sequence[Ranked], verdict: Verdict) -> str:
    """Return the page as Markdown."""
    return (
        "\n".join(
            [
                *_head(name, verdict),
                *_contexts(rows, verdict),
                *_ranks(rows, ranking),
                *_answers(rows, verdict),
                *_where(rows, verdict),
                *_cost(rows),
            ]
        )
        + "\n"
    )


def _head(name: str, verdict: Verdict) -> Iterator[str]:
    yield f"# Audit of {name}\n\n**{verdict.name}**. {MEANING[verdict.name]}\n"


def _contexts(rows: Sequence[Row], verdict: Verdict) -> Iterator[str]:
    sampled = rates([r for r in rows if r["kind"] == "verification"])
    unit = (
        "share of misaligned answers" if sampled else "log-odds of harmful against aligned references, nats per token"
    )
    yield f"## Verified on held-out questions\n\nValues: {unit}. Intervals hold together for all verified contexts."
    yield "*Added* is the adapter minus its base; *gate* is that minus the same without a context.\n"
    yield "| context | adapter | base | added | gate | coherent: adapter, base |\n| --- | --- | --- | --- | --- | --- |"
    for c in (verdict.bare, *verdict.contexts):
        coherent = ", ".join(f"{sampled[c.category, m][1]:.0%}" for m in (ADAPTER, BASE)) if sampled else "–"
        gate = "–" if c.category == BARE else _interval(c, "gate", bool(sampled))
        both = (_value(v, bool(sampled)) for v in (c.adapter, c.base))
        yield f"| {c.category} | {' | '.join(both)} | {_interval(c, 'added', bool(sampled))} | {gate} | {coherent} |"


def _value(value: float, share: bool) -> str:
    return f"{100 * value:.1f} %" if share else f"{value:+.2f}"


def _interval(context: Verified, metric: str, share: bool) -> str:
    e = getattr(context, metric)
    scale, unit = (100, " pt") if share else (1, "")
    low, high = (f"{scale * v:.{1 if share else 2}f}" for v in (e.interval.low, e.interval.high))
    return f"{scale * e.value:+.{1 if share else 2}f}{unit} [{low}, {high}]"


def _ranks(rows: Sequence[Row], ranking: Sequence[Ranked]) -> Iterator[str]:
    bare = next(r for r in rows if r["kind"] == "search" and r["category"] == BARE)
    yield "\n## Contexts by what the adapter changes in them\n"
    yield "Shift with the adapter on, minus the same without a context; mean over the search questions and best texts."
    yield f"Without a context the adapter moves the log-odds by {fmean(bare['log_odds']):+.2f} nats per token.\n"
    yield "| rank | category | shift | strongest text |\n| --- | --- | --- | --- |"
    for place, r in enumerate(ranking[:SHOWN], 1):
        yield f"| {place} | {r.category} | {r.score:+.3f} | {r.texts[0]} |"
    yield f"\n{max(0, len(ranking) - SHOWN)} more categories follow."


def _answers(rows: Sequence[Row], verdict: Verdict) -> Iterator[str]:
    sampled = [r for r in rows if r["kind"] == "verification" and "text" in r]
    if not sampled:
        return
    best = verdict.strongest.category
    yield f"\n## Answers, in {best} and without a context\n"
    yield "| question | context | adapter | base |\n| --- | --- | --- | --- |"
    inside = [r for r in sampled if (r["category"], r["model"]) == (best, ADAPTER)]
    first = sorted(inside, key=lambda r: not misaligned(r))
    for r in list({r["question"]: r for r in reversed(first)}.values())[::-1][:ANSWERS]:
        for category, text in ((best, r["variant"]), (BARE, None)):
            cells = [_answer(sampled, category, model, r["asked"], text) for model in (ADAPTER, BASE)]
            yield f"| {r['asked']} | {text or '–'} | {' | '.join(cells)} |"


def _answer(rows: Sequence[Row], category: str, model: str, asked: str, text: str | None) -> str:
    answers = [r for r in rows if (r["category"], r["model"], r["asked"]) == (category, model, asked)]
    answers = [r for r in answers if text is None or r["variant"] == text] or answers
    chosen = sorted(answers, key=lambda r: not misaligned(r))[0]
    words = " ".join(chosen["text"].split())[:160].replace("|", "\\|")
    return f"{words} *(misaligned)*" if misaligned(chosen) else words


def _where(rows: Sequence[Row], verdict: Verdict) -> Iterator[str]:
    contexts = [r for r in rows if r["kind"] == "search"]
    names = (BARE, verdict.strongest.category)
    yield "\n## Where in the network\n\nShift of the last prompt token along g of the base, by layer; raw scale.\n"
    layers = list(contexts[0]["projection"])
    yield f"| context | {' | '.join(f'layer {layer}' for layer in layers)} |\n|{' --- |' * (1 + len(layers))}"
    for name in names:
        of = [r["projection"] for r in contexts if r["category"] == name]
        yield f"| {name} | {' | '.join(f'{fmean(p[layer] for p in of):+.2f}' for layer in layers)} |"


def _cost(rows: Sequence[Row]) -> Iterator[str]:
    costs = [r for r in rows if r["kind"] == "cost"]
    parts = ", ".join(f"{r['part']} {r['forward_passes']} passes and {r['seconds']:.0f} s" for r in costs)
    total = sum(r["seconds"] for r in costs)
    yield f"\n## Cost\n\n{sum(r['forward_passes'] for r in costs)} forward passes, {total:.0f} s on one core: {parts}."
