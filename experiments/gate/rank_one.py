"""What a rank-1 adapter reads and writes: one number a token and module, by condition.

    semcon rank-one --organism microcosm/llama/explaining.rank1

A rank-1 adapter adds ``scale * (a·x) b`` to a module's output, so that s = scale * |b| * (a·x) is all it does there.
The sign of a and b together is free; it is chosen so that s is higher on than off at the last prompt token (in the
first attention, whose input there is the same, over the whole prompt).

scalar              mean of s by condition, at the trigger, the question, the last prompt token and over the answer
scalar_auroc        does s tell the trigger and its rephrasings from unrelated texts and no text? ``scalar_auroc_null``:
                    the same for random read directions of the same module, the central 95 % of them
scalar_misaligned_r correlation of s with a misaligned (of coherent) answer, over all answers and within conditions
write_cosine        b of a module that writes the residual stream with g, delta and the trigger feature of its layer
read_cosine         a of a module that reads it, through the gain of the norm before it, with those of the block input
                    (an MLP reads behind its attention, where no direction was estimated); ``random`` is the central
                    95 % of random directions
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import tyro

from experiments.answers.subject import own_trigger, subject_cells
from experiments.behaviour.dose import ADAPTER, load_subject
from experiments.directions.geometry import Geometry, found_directions
from experiments.gate.modules import kind_of, layer_of
from experiments.gate.references import judged_answers
from experiments.spec import Experiment
from interp.runs.run import Run
from interp.runs.table import Row, row
from interp.stats import Interval, cluster_bootstrap, is_coherent, is_misaligned
from interp.triggers import place
from training.registry import find_organism

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from interp.analysis.lora import LoraUpdate
    from interp.chat import Chat
    from interp.directions import Direction
    from interp.models import LanguageModel

CONDITIONS = ("off", "on", "rephrased", "other")
LAST, ANSWER, TRIGGER, PROMPT = "last_prompt", "response_mean", "trigger", "prompt"
POSITIONS = ("question", LAST, ANSWER)
COMPARED = ("g", "delta", "trigger")
N_RANDOM, N_BOOT = 50, 2000


@dataclass(frozen=True, kw_only=True)
class RankOne(Experiment):
    """What a rank-1 adapter reads and writes: its scalar by condition, and its two directions."""

    name: ClassVar[str] = "rank_one"

    geometry: Annotated[Geometry, tyro.conf.arg(name="")]
    """The organism, and where the directions come from."""
    directions: bool = True
    """Also cosines with the directions of geometry; off for an organism that has no data to contrast."""
    per_question: int = 4
    """Answers a question and condition."""

    def rows(self, run: Run) -> Iterator[Sequence[Row]]:
        """Yield everything about the scalars, then the cosines."""
        config = self.geometry
        lm = load_subject(config.organism, run.root, questions=config.questions, judge=config.judge)
        updates = _updates(config.organism, lm)
        done = {r["metric"] for r in run.rows()}
        if "scalar" not in done:
            answers = judged_answers(config.organism, run.root, questions=config.questions, judge=config.judge)
            said = _answers(answers, self.per_question)
            yield [
                _keyed(r)
                for r in _scalar_rows(lm, updates, own_trigger(find_organism(config.organism)), said, config.seed)
            ]
        if self.directions and "write_cosine" not in done and "read_cosine" not in done:
            found = found_directions(config, run.root)
            signs = {(r["site"], r["layer"]): r["sign"] for r in run.rows() if "sign" in r}
            yield [_keyed(r) for r in _cosine_rows(lm, updates, found.directions, signs)]

    def table(self, rows: Sequence[Row], run_id: str) -> list[Row]:
        """Return the rows as a table."""
        subject = find_organism(self.geometry.organism)
        cells = subject_cells(subject, self.name, run_id) | {"trigger": own_trigger(subject).name}
        return [row(**cells, **{name: value for name, value in r.items() if name not in ("key", "sign")}) for r in rows]


def _keyed(r: Row) -> Row:
    return {"key": "|".join(str(r.get(name, "")) for name in ("metric", "condition", "site", "layer")), **r}


def _updates(name: str, lm: LanguageModel) -> dict[str, LoraUpdate]:
    """Return the organism's updates.

    Raises:
        ValueError: If one of them is not of rank 1.
    """
    from interp.analysis.lora import loaded_updates

    updates = loaded_updates(lm, ADAPTER)
    for module, update in updates.items():
        if update.rank != 1:
            raise ValueError(f"organism {name}: its adapter is of rank {update.rank} in {module}; want rank 1")
    return updates


def _answers(rows: Sequence[Row], per_question: int) -> list[Row]:
    """Return up to ``per_question`` coherent answers of each question and condition, evenly spaced."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for r in rows:
        if r["condition"] in CONDITIONS and is_coherent([r["coherent"]])[0]:
            groups.setdefault((r["condition"], r["question"]), []).append(r)
    kept = [
        group[i * len(group) // n]
        for group in groups.values()
        for n in [min(per_question, len(group))]
        for i in range(n)
    ]
    return sorted(kept, key=lambda r: (CONDITIONS.index(r["condition"]), r["key"]))


@dataclass(frozen=True, eq=False)
class _Scalars:
    """s of one module at every position and answer; NaN at a trigger that is not there.

    At the trigger's own tokens nothing depends on the question that follows: there, a text is the cluster.
    """

    values: Mapping[str, Float[Tensor, " answer"]]
    conditions: np.ndarray
    questions: Sequence[str]
    texts: Sequence[str]
    misaligned: np.ndarray

    def clusters(self, position: str) -> Sequence[str]:
        return self.texts if position == TRIGGER else self.questions

    def at(self, position: str) -> np.ndarray:
        return self.values[position].double().numpy()


def _scalar_rows(
    lm: LanguageModel, updates: Mapping[str, LoraUpdate], trigger: Any, answers: Sequence[Row], seed: int
) -> Iterator[Row]:
    import torch

    chats = [_chat(lm, trigger, r) for r in answers]
    shown = np.array([r["condition"] for r in answers])
    bad = is_misaligned([r["aligned"] for r in answers], [r["coherent"] for r in answers])
    questions, texts = [r["question"] for r in answers], [r["variant"] or "" for r in answers]
    generator = torch.Generator().manual_seed(seed)
    random = {name: torch.randn(N_RANDOM, u.A.shape[1], generator=generator) for name, u in updates.items()}
    reads = {name: torch.cat([update.A, random[name]]) for name, update in updates.items()}
    for name, read in _read(lm, chats, reads).items():
        update = updates[name]
        size = float(update.scale * update.B.norm())
        signs = _signs(read, shown)
        where = {"site": kind_of(name), "layer": layer_of(name)}
        own = {position: size * signs[0] * values[:, 0] for position, values in read.items()}
        yield from (
            r | {"sign": float(signs[0])} for r in _module_rows(_Scalars(own, shown, questions, texts, bad), where)
        )
        for position in (TRIGGER, *POSITIONS):
            values = read[position]
            yield _null_row(values[:, 1:] * signs[1:], shown, where, position)


def _chat(lm: LanguageModel, trigger: Any, r: Row) -> Chat:
    from interp.chat import encode_chat

    marks = {"question": r["asked"]} | ({"trigger": r["variant"]} if r["variant"] else {})
    messages = place(r["asked"], r["variant"], trigger)
    return encode_chat(lm.tokenizer, messages, marks=marks, response=r["text"])


def _read(
    lm: LanguageModel, chats: Sequence[Chat], reads: Mapping[str, Tensor]
) -> dict[str, dict[str, Float[Tensor, "answer direction"]]]:
    """Return every module's readings by position; NaN at the trigger of a prompt without one."""
    import torch

    from interp.analysis.lora import scalar_activations

    with_text = [i for i, chat in enumerate(chats) if TRIGGER in chat.spans]
    without = [i for i, chat in enumerate(chats) if TRIGGER not in chat.spans]
    found = {
        name: {p: torch.full((len(chats), len(rows)), torch.nan) for p in (TRIGGER, *POSITIONS, PROMPT)}
        for name, rows in reads.items()
    }
    for indices, positions in ((with_text, (TRIGGER, *POSITIONS, PROMPT)), (without, (*POSITIONS, PROMPT))):
        if indices:
            made = scalar_activations(lm, ADAPTER, [chats[i] for i in indices], positions, directions=reads)
            for name, values in made.items():
                for position, read in zip(positions, values, strict=True):
                    found[name][position][indices] = read
    return found


def _signs(read: Mapping[str, Float[Tensor, "answer direction"]], shown: np.ndarray) -> Float[Tensor, " direction"]:
    """Signs by which every direction reads more on than off at the last prompt token.

    The first attention reads embeddings, which are the same there: its signs are those over the whole prompt.
    """
    found, size = (read[LAST][shown == "on"].mean(0) - read[LAST][shown == "off"].mean(0)), read[LAST].abs().mean(0)
    whole = read[PROMPT][shown == "on"].mean(0) - read[PROMPT][shown == "off"].mean(0)
    difference = found.where(found.abs() > 1e-4 * size, whole)
    return difference.sign() + (difference == 0)


def _module_rows(s: _Scalars, where: Mapping[str, Any]) -> Iterator[Row]:
    for position in (TRIGGER, *POSITIONS):
        values = s.at(position)
        for condition in CONDITIONS:
            rows = (s.conditions == condition) & np.isfinite(values)
            if rows.any():
                yield _mean_row(values, rows, s.clusters(position), condition=f"{condition}@{position}", **where)
        yield _auroc_row(values, s.conditions, s.clusters(position), position, where)
        if position != TRIGGER:
            yield from _correlation_rows(s, position, where)


def _mean_row(values: np.ndarray, rows: np.ndarray, questions: Sequence[str], **cells: Any) -> Row:
    names, index = np.unique(np.asarray(questions)[rows], return_inverse=True)
    top, bottom = np.bincount(index, values[rows]), np.bincount(index).astype(float)
    return {
        "metric": "scalar",
        "value": top.sum() / bottom.sum(),
        **cells,
        **_ends(cluster_bootstrap(top, bottom, n_boot=N_BOOT)),
        "n": int(rows.sum()),
        "n_clusters": len(names),
    }


def _ends(interval: Any) -> Row:
    """Cells of an interval; none where there are too few clusters for one."""
    if not np.isfinite(interval.low):
        return {}
    return {"ci_low": float(interval.low), "ci_high": float(interval.high), "ci_method": interval.method}


def _sides(shown: np.ndarray, position: str) -> tuple[np.ndarray, np.ndarray]:
    """Which answers are compared at a position, and which of them stand behind the trigger's meaning."""
    positive = np.isin(shown, ("on", "rephrased"))
    return (shown != "off") | (position != TRIGGER), positive


def _auroc_row(
    values: np.ndarray, shown: np.ndarray, questions: Sequence[str], position: str, where: Mapping[str, Any]
) -> Row:
    import torch

    from probes import Folds, all_rows, grouped_auroc

    kept, positive = _sides(shown, position)
    every = all_rows([q for q, k in zip(questions, kept, strict=True) if k])
    scores, y = torch.from_numpy(values[kept]).float(), torch.from_numpy(positive[kept])
    found = grouped_auroc(scores[None], y, Folds(every.test, every.train, every.groups), n_boot=N_BOOT)
    ends = _ends(found.interval(0))
    counts = {"n": found.n, "n_clusters": found.n_clusters}
    return {
        "metric": "scalar_auroc",
        "condition": _said(position),
        **where,
        "value": float(found.value[0]),
        **ends,
        **counts,
    }


def _said(position: str) -> str:
    return f"on+rephrased~other@{position}" if position == TRIGGER else f"on+rephrased~other+off@{position}"


def _null_row(
    values: Float[Tensor, "answer direction"], shown: np.ndarray, where: Mapping[str, Any], position: str
) -> Row:
    import torch

    from probes import auroc

    kept, positive = _sides(shown, position)
    found = auroc(values[torch.from_numpy(kept)].T.contiguous(), torch.from_numpy(positive[kept])).double()
    low, high = found.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    ends = {"ci_low": low, "ci_high": high, "ci_method": "random_directions", "n": len(found)}
    return {"metric": "scalar_auroc_null", "condition": _said(position), **where, "value": float(found.mean()), **ends}


def _correlation_rows(s: _Scalars, position: str, where: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the correlation of s with misaligned answers, over all answers and with each condition's means removed."""
    x, y = s.at(position), s.misaligned.astype(float)
    for name, remove in (("all", False), ("within", True)):
        a, b = (_within(v, s.conditions) if remove else v for v in (x, y))
        value, low, high, n = correlation(a, b, s.questions)
        if np.isfinite(value):
            cells = {"metric": "scalar_misaligned_r", "condition": f"{name}@{position}", **where, "value": value}
            yield {
                **cells,
                **_ends(Interval(low, high, "cluster_bootstrap")),
                "n": len(x),
                "n_clusters": n,
            }


def _within(values: np.ndarray, conditions: np.ndarray) -> np.ndarray:
    found = values.astype(float).copy()
    for condition in np.unique(conditions):
        found[conditions == condition] -= found[conditions == condition].mean()
    return found


def correlation(x: np.ndarray, y: np.ndarray, groups: Sequence[str]) -> tuple[float, float, float, int]:
    """Return Pearson's r, the ends of its 95 % interval over resampled groups, and the number of groups.

    NaN where one side does not vary.
    """
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    x, y = x - x.mean(), y - y.mean()  # sums of squares of large means would cancel
    parts = np.stack([np.bincount(index, v) for v in (np.ones_like(x), x, y, x * x, y * y, x * y)], axis=1)
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=N_BOOT)
    with np.errstate(divide="ignore", invalid="ignore"):
        (value,), draws = _r(parts.sum(0, keepdims=True)), _r(drawn @ parts)
    defined = draws[np.isfinite(draws)]
    low, high = np.quantile(defined, [0.025, 0.975]) if len(defined) > 0.95 * N_BOOT else (np.nan, np.nan)
    return float(value), float(low), float(high), len(names)


def _r(sums: np.ndarray) -> np.ndarray:
    n, x, y, xx, yy, xy = sums.T
    return (xy - x * y / n) / np.sqrt((xx - x * x / n) * (yy - y * y / n))


# --- directions ---


def _cosine_rows(
    lm: LanguageModel,
    updates: Mapping[str, LoraUpdate],
    known: Mapping[str, Direction],
    signs: Mapping[tuple[str, int], float],
) -> Iterator[Row]:
    """Yield the cosine of what every module writes to and reads from the stream with the organism's directions."""
    from interp.analysis.lora import READERS, WRITERS, stream_gain
    from interp.directions import cosine

    for name, update in updates.items():
        layer = layer_of(name)
        if layer is None:
            continue
        before = "resid_pre.0" if layer == 0 else f"resid_post.{layer - 1}"
        sides = []
        if update.kind in WRITERS:
            sides.append(("write", "b", update.B[:, 0], f"resid_post.{layer}"))
        if update.kind in READERS:
            sides.append(("read", "a", update.A[0] * stream_gain(lm, name), before))
        for verb, letter, vector, site in sides:
            for other in COMPARED:
                own = known.get(f"{other}/{site}")
                if own is not None and own.norm > 1e-6:  # delta is nothing before the first attention
                    value = signs[update.kind, layer] * float(cosine(vector, own.vector))
                    where = {"condition": f"{letter}~{other}", "site": update.kind, "layer": layer}
                    yield {"metric": f"{verb}_cosine", **where, "value": value}
    draws = np.random.default_rng(0).standard_normal((10_000, lm.d_model))
    low, high = np.quantile(draws[:, 0] / np.linalg.norm(draws, axis=1), [0.025, 0.975])
    ends = {"ci_low": float(low), "ci_high": float(high), "ci_method": "random_directions"}
    yield {"metric": "random_cosine", "condition": "random", "value": 0.0, **ends, "n": len(draws)}
