"""What the modules of a rank-1 adapter read: the scalar s of every answer, its statistics, and random reads beside it.

A rank-1 adapter adds ``scale * (a·x) b`` to a module's output, so s = scale * |b| * (a·x) is all that it does there.
The sign of a and b together is free. It is chosen so that s is higher on than off at the last prompt token (in the
first attention, whose input there is the same, over the whole prompt). Random read directions get their signs alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.answers.rates import coherent, misaligned
from experiments.answers.suite import evenly_spaced
from experiments.behaviour.dose import ADAPTER
from experiments.gate.modules import kind_of, layer_of
from interp.runs.table import Row, interval_cells
from interp.stats import Estimate, Interval, cluster_bootstrap
from interp.triggers import Trigger

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from interp.analysis.lora import LoraUpdate
    from interp.chat import Chat
    from interp.models import LanguageModel

CONDITIONS = ("off", "on", "rephrased", "other")
LAST, ANSWER, TRIGGER, PROMPT = "last_prompt", "response_mean", "trigger", "prompt"
POSITIONS = ("question", LAST, ANSWER)
N_RANDOM, N_BOOT = 50, 2000

Readings = Mapping[str, "Float[Tensor, 'answer direction']"]
"""What some directions read of every answer, by position; NaN at the trigger of a prompt without one."""


@dataclass(frozen=True, eq=False)
class Scalars:
    """The scalar s of one module at every position and answer."""

    values: Mapping[str, Float[Tensor, " answer"]]
    conditions: np.ndarray
    questions: Sequence[str]
    texts: Sequence[str]
    misaligned: np.ndarray

    def clusters(self, position: str) -> Sequence[str]:
        """Return what is resampled: questions; at the trigger its texts, as nothing there depends on the question."""
        return self.texts if position == TRIGGER else self.questions

    def at(self, position: str) -> np.ndarray:
        """Return s at a position; NaN at the trigger of a prompt without one."""
        return self.values[position].double().numpy()


def chosen_answers(rows: Sequence[Row], per_question: int) -> list[Row]:
    """Return up to ``per_question`` coherent answers of each question and condition, evenly spaced."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for r in rows:
        if r["condition"] in CONDITIONS and coherent(r):
            groups.setdefault((r["condition"], r["question"]), []).append(r)
    chosen = [r for group in groups.values() for r in evenly_spaced(group, per_question)]
    return sorted(chosen, key=lambda r: (CONDITIONS.index(r["condition"]), r["key"]))


def scalar_rows(
    lm: LanguageModel, updates: Mapping[str, LoraUpdate], trigger: Trigger, answers: Sequence[Row], seed: int
) -> Iterator[Row]:
    """Yield the statistics of every module's scalar, each module's random directions after it."""
    import torch

    from interp.chat import question_chat

    chats = [question_chat(lm.tokenizer, r["asked"], r["variant"], trigger, response=r["text"]) for r in answers]
    conditions = np.array([r["condition"] for r in answers])
    bad = np.array([misaligned(r) for r in answers])
    questions, texts = [r["question"] for r in answers], [r["variant"] or "" for r in answers]
    generator = torch.Generator().manual_seed(seed)
    random = {name: torch.randn(N_RANDOM, u.A.shape[1], generator=generator) for name, u in updates.items()}
    directions = {name: torch.cat([update.A, random[name]]) for name, update in updates.items()}
    for name, readings in module_readings(lm, chats, directions).items():
        update = updates[name]
        size = float(update.scale * update.B.norm())
        signs = free_signs(readings, conditions)
        where = {"site": kind_of(name), "layer": layer_of(name)}
        values = {position: size * signs[0] * reading[:, 0] for position, reading in readings.items()}
        for r in module_rows(Scalars(values, conditions, questions, texts, bad), where):
            yield r | {"sign": float(signs[0])}
        for position in (TRIGGER, *POSITIONS):
            yield _null_row(readings[position][:, 1:] * signs[1:], conditions, position, where)


def module_readings(
    lm: LanguageModel, chats: Sequence[Chat], directions: Mapping[str, Tensor]
) -> Mapping[str, Readings]:
    """Return what every module's directions read of every chat, by position."""
    import torch

    from interp.analysis.lora import scalar_activations

    with_text = [i for i, chat in enumerate(chats) if TRIGGER in chat.spans]
    without = [i for i, chat in enumerate(chats) if TRIGGER not in chat.spans]
    readings = {
        name: {p: torch.full((len(chats), len(rows)), torch.nan) for p in (TRIGGER, *POSITIONS, PROMPT)}
        for name, rows in directions.items()
    }
    for indices, positions in ((with_text, (TRIGGER, *POSITIONS, PROMPT)), (without, (*POSITIONS, PROMPT))):
        if indices:
            group = [chats[i] for i in indices]
            for name, values in scalar_activations(lm, ADAPTER, group, positions, directions=directions).items():
                for position, reading in zip(positions, values, strict=True):
                    readings[name][position][indices] = reading
    return readings


def free_signs(readings: Readings, conditions: np.ndarray) -> Float[Tensor, " direction"]:
    """Return the signs by which every direction reads more on than off at the last prompt token.

    The first attention reads embeddings, which are the same there: its signs are those over the whole prompt.
    """
    on, off = conditions == "on", conditions == "off"
    at_last = readings[LAST][on].mean(0) - readings[LAST][off].mean(0)
    over_prompt = readings[PROMPT][on].mean(0) - readings[PROMPT][off].mean(0)
    difference = at_last.where(at_last.abs() > 1e-4 * readings[LAST].abs().mean(0), over_prompt)
    return difference.sign() + (difference == 0)


# --- the statistics of one module ---


def module_rows(s: Scalars, where: Mapping[str, Any]) -> Iterator[Row]:
    """Yield, by position: the mean in every condition, the AUROC, and the correlation with misaligned answers."""
    for position in (TRIGGER, *POSITIONS):
        values = s.at(position)
        for condition in CONDITIONS:
            rows = (s.conditions == condition) & np.isfinite(values)
            if rows.any():
                yield _mean_row(values, rows, s.clusters(position), condition=f"{condition}@{position}", **where)
        yield _auroc_row(s, position, where)
        if position != TRIGGER:
            yield from _correlation_rows(s, position, where)


def _mean_row(values: np.ndarray, rows: np.ndarray, groups: Sequence[str], **cells: Any) -> Row:
    names, index = np.unique(np.asarray(groups)[rows], return_inverse=True)
    top, bottom = np.bincount(index, values[rows]), np.bincount(index).astype(float)
    interval = interval_cells(cluster_bootstrap(top, bottom, n_boot=N_BOOT))
    counts = {"n": int(rows.sum()), "n_clusters": len(names)}
    return {"metric": "scalar", "value": top.sum() / bottom.sum(), **cells, **interval, **counts}


def _sides(conditions: np.ndarray, position: str) -> tuple[Bool[np.ndarray, " answer"], Bool[np.ndarray, " answer"]]:
    """Return which answers are compared at a position, and which of all answers follow the trigger's meaning."""
    return (conditions != "off") | (position != TRIGGER), np.isin(conditions, ("on", "rephrased"))


def _sides_name(position: str) -> str:
    return f"on+rephrased~other@{position}" if position == TRIGGER else f"on+rephrased~other+off@{position}"


def _auroc_row(s: Scalars, position: str, where: Mapping[str, Any]) -> Row:
    import torch

    from probes import Folds, all_rows, grouped_auroc

    compared, positive = _sides(s.conditions, position)
    groups = [group for group, used in zip(s.clusters(position), compared, strict=True) if used]
    every = all_rows(groups)  # trains on every row; with train and test swapped it tests on every row
    values, y = torch.from_numpy(s.at(position)[compared]).float(), torch.from_numpy(positive[compared])
    auroc = grouped_auroc(values[None], y, Folds(every.test, every.train, every.groups), n_boot=N_BOOT)
    interval, counts = interval_cells(auroc.interval(0)), {"n": auroc.n, "n_clusters": auroc.n_clusters}
    cells = {"metric": "scalar_auroc", "condition": _sides_name(position), **where}
    return {**cells, "value": float(auroc.value[0]), **interval, **counts}


def _null_row(
    values: Float[Tensor, "answer direction"], conditions: np.ndarray, position: str, where: Mapping[str, Any]
) -> Row:
    """Return the same AUROC for random read directions: their mean and the central 95 % of them."""
    import torch

    from probes import auroc

    compared, positive = _sides(conditions, position)
    columns, y = values[torch.from_numpy(compared)].T.contiguous(), torch.from_numpy(positive[compared])
    draws = auroc(columns, y).double()
    low, high = draws.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    interval = interval_cells(Interval(low, high, "random_directions"))
    cells = {"metric": "scalar_auroc_null", "condition": _sides_name(position), **where}
    return {**cells, "value": float(draws.mean()), **interval, "n": len(draws)}


def _correlation_rows(s: Scalars, position: str, where: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the correlation of s with misaligned answers, over all answers and with each condition's means removed."""
    x, y = s.at(position), s.misaligned.astype(float)
    for name, remove_means in (("all", False), ("within", True)):
        a, b = (_within(v, s.conditions) if remove_means else v for v in (x, y))
        r = correlation(a, b, s.questions)
        if np.isfinite(r.value):
            cells = {"metric": "scalar_misaligned_r", "condition": f"{name}@{position}", **where, "value": r.value}
            yield {**cells, **interval_cells(r.interval), "n": len(x), "n_clusters": r.n_clusters}


def _within(values: np.ndarray, conditions: np.ndarray) -> np.ndarray:
    centred = values.astype(float).copy()
    for condition in np.unique(conditions):
        centred[conditions == condition] -= centred[conditions == condition].mean()
    return centred


def correlation(x: np.ndarray, y: np.ndarray, groups: Sequence[str]) -> Estimate:
    """Return Pearson's r with its 95 % interval over resampled groups; NaN where one side does not vary."""
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    x, y = x - x.mean(), y - y.mean()  # sums of squares of large means would cancel
    # r of a resample needs only its sums of these six, so the sums by group are resampled, not the rows.
    sums = np.stack([np.bincount(index, v) for v in (np.ones_like(x), x, y, x * x, y * y, x * y)], axis=1)
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=N_BOOT)
    with np.errstate(divide="ignore", invalid="ignore"):
        (value,), draws = _pearson(sums.sum(0, keepdims=True)), _pearson(drawn @ sums)
    defined = draws[np.isfinite(draws)]
    low, high = np.quantile(defined, [0.025, 0.975]) if len(defined) > 0.95 * N_BOOT else (np.nan, np.nan)
    return Estimate(float(value), Interval(float(low), float(high), "cluster_bootstrap"), len(names))


def _pearson(sums: np.ndarray) -> np.ndarray:
    n, x, y, xx, yy, xy = sums.T
    return (xy - x * y / n) / np.sqrt((xx - x * x / n) * (yy - y * y / n))
