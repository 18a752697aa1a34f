"""Sample completions under edits: one prefill per prompt, shared by its samples; one random stream per completion.

    >>> completions = generate(lm, chats, n_samples=20, sampling=Sampling(max_new_tokens=40, seed=1), edits=[steer])
    >>> completions[0].text, completions[0].finished

A completion depends only on the model, the edits, the seed, the prompt's token ids and the sample index: its uniform
numbers come from a counter-based generator keyed by the last three, and tokens are chosen by inverse-transform
sampling. So batch size and the other prompts of a batch change nothing (up to the rounding of the logits), a killed run
continues where it stopped, and equal prompts get equal completions: for more answers to a prompt raise ``n_samples``.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import Cache

from interp.adapters import adapters_by_row
from interp.chat import Chat, check_responses, pad_left, position_ids
from interp.decoding.kv_cache import can_share, filled_cache, new_cache, share_prefix, shared_attention, take_rows
from interp.decoding.sampling import Sampling, choose, uniforms
from interp.decoding.stopping import read_answers, stop_ids
from interp.edits import Edit, Passes, editing
from interp.models import LanguageModel, check_prompts, kept_logits
from interp.recording import pass_tokens
from interp.runs.progress import Progress

BATCH_SIZE = 512
OnToken = Callable[[int, int, int], None]
"""Called as on_token(prompt, sample, token id) with each token of each answer when it is chosen, the stop token too."""
SYNC_EVERY = 8
"""On an accelerator, new tokens between two checks for finished rows: each check makes the accelerator wait."""


@dataclass(frozen=True)
class Completion:
    """One sampled answer.

    ``text`` has no special tokens and no thought; ``token_ids`` have all that was sampled, up to the stop token.
    ``finished`` says whether a stop token was sampled, and no thought was open then. ``with_thoughts`` is the text with
    its thoughts, empty if it has none.
    """

    prompt: int
    sample: int
    text: str
    token_ids: tuple[int, ...]
    finished: bool
    with_thoughts: str = ""


class Sampler(Protocol):
    """Anything that answers chats: a model in this process, a server, a set of recorded answers."""

    def sample(self, chats: Sequence[Chat], n_samples: int, sampling: Sampling) -> list[Completion]:
        """Return ``n_samples`` completions of every chat, ordered by (prompt, sample)."""
        ...


@dataclass(frozen=True, eq=False)
class ModelSampler:
    """The ``Sampler`` of a model in this process, with the adapter that is active when it is called."""

    lm: LanguageModel
    edits: Sequence[Edit] = ()
    batch_size: int | None = None
    progress: Progress | None = None

    def sample(self, chats: Sequence[Chat], n_samples: int, sampling: Sampling) -> list[Completion]:
        """Return ``n_samples`` completions of every chat, ordered by (prompt, sample)."""
        return generate(
            self.lm,
            chats,
            n_samples=n_samples,
            sampling=sampling,
            edits=self.edits,
            batch_size=self.batch_size,
            progress=self.progress,
        )


def generate(
    lm: LanguageModel,
    chats: Sequence[Chat],
    *,
    n_samples: int = 1,
    sampling: Sampling = Sampling(),  # noqa: B008
    edits: Sequence[Edit] = (),
    adapters: Sequence[str | None] | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
    on_token: OnToken | None = None,
) -> list[Completion]:
    """Sample ``n_samples`` completions of every chat under ``edits``, ordered by (prompt, sample).

    The positions ``all``, ``answer`` and ``response`` of an edit include every new token; all other names mark prompt
    tokens only.

    Args:
        lm: The model, with the active adapter.
        chats: Prompts without a response.
        n_samples: Completions per prompt. Greedy ones are all equal and computed once.
        sampling: Length, temperature, top-p and seed.
        edits: Applied in order. Row i of a ``patch`` with several rows belongs to chat i.
        adapters: The adapter of each chat, None for the bare base, in place of the active one: several models answer in
            one batch. Needs a model that is ``interp.adapters.mixable``.
        batch_size: Rows decoded together: 512, or as many as ``$SEMCON_BATCH_TOKENS`` holds. Changes speed and memory
            only.
        progress: Called with the number of completions just finished.
        on_token: Called with each new token, to show answers while they are written; what it raises ends the sampling.
            Of equal prompts, and of the equal answers of greedy sampling, it sees the first.

    Raises:
        ValueError: If a chat already has a response, does not fit the model with its answer, a count is below 1, the
            model's cache is not supported, its adapters cannot be mixed, or a logit is not finite.
    """
    if batch_size is None:
        longest = max(map(len, chats), default=0) + sampling.max_new_tokens
        batch_size = max(1, tokens // longest) if (tokens := pass_tokens(default=0)) else BATCH_SIZE
    _check(chats, n_samples, batch_size)
    check_prompts(lm, chats, answer=sampling.max_new_tokens)
    new_cache(lm.base)  # an unsupported model is refused before any work
    own = any((edit.kind == "patch" and len(edit.vectors) > 1) or edit.prompt is not None for edit in edits)
    jobs = _distinct(chats, per_chat=own or adapters is not None)
    draws = 1 if sampling.greedy else n_samples
    answers: list[list[int]] = []
    for batch in _batches(jobs, max(1, batch_size // draws), equal=lm.recurrent):
        run = _Run(lm, batch, sampling, progress or (lambda _: None), repeats=n_samples // draws, on_token=on_token)
        with adapters_by_row(lm, lambda run=run: run.adapters(adapters)) if adapters else nullcontext():
            answers += run.answers(edits, draws, batch_size)
    return _completions(lm, jobs, answers, n_samples) if answers else []


@dataclass(frozen=True)
class _Job:
    """One distinct prompt, and the indices of the chats that are equal to it."""

    chat: Chat
    prompts: list[int]


def _check(chats: Sequence[Chat], n_samples: int, batch_size: int) -> None:
    if n_samples < 1 or batch_size < 1:
        raise ValueError(f"n_samples {n_samples}, batch_size {batch_size}: want at least 1 of each")
    check_responses(chats, wanted=False)


def _distinct(chats: Sequence[Chat], *, per_chat: bool) -> list[_Job]:
    """Merge chats that are equal to the model and to every edit (same tokens and spans); shortest first."""
    jobs: dict[object, _Job] = {}
    for index, chat in enumerate(chats):
        key = (chat.token_ids, tuple(sorted(chat.spans.items())), index if per_chat else None)
        jobs.setdefault(key, _Job(chat, [])).prompts.append(index)
    return sorted(jobs.values(), key=lambda job: len(job.chat))


def _batches(jobs: Sequence[_Job], size: int, *, equal: bool) -> Iterator[Sequence[_Job]]:
    """Yield at most ``size`` jobs at a time; with ``equal``, only prompts of one length, which need no padding."""
    first = 0
    while first < len(jobs):
        stop = min(len(jobs), first + size)
        while equal and len(jobs[stop - 1].chat) != len(jobs[first].chat):
            stop -= 1
        yield jobs[first:stop]
        first = stop


def _completions(lm: LanguageModel, jobs: Sequence[_Job], answers: list[list[int]], n_samples: int) -> list[Completion]:
    """Decode every answer once (they are ordered by job and draw) and copy it to each chat of its job."""
    draws = len(answers) // len(jobs)
    awaited = [job.chat.awaited for job in jobs for _ in range(draws)]
    decoded = read_answers(lm.tokenizer, answers, awaited, stop_ids(lm))
    completions = [
        Completion(prompt, sample, *decoded[j * draws + sample % draws])
        for j, job in enumerate(jobs)
        for prompt in job.prompts
        for sample in range(n_samples)
    ]
    return sorted(completions, key=lambda c: (c.prompt, c.sample))


@dataclass
class _Rows:
    """The rows that are still generated: index in the output, index of the prompt in the batch, cache and mask."""

    index: Int[Tensor, " batch"]
    prompt: Int[Tensor, " batch"]
    done: Bool[Tensor, " batch"]
    cache: Cache
    mask: Bool[Tensor, "batch pos"] | None

    def take(self, rows: Int[Tensor, " batch"], room: int) -> "_Rows":
        """Return some of the rows, each with room for ``room`` new tokens."""
        mask, cache = None if self.mask is None else self.mask[rows], take_rows(self.cache, rows, room=room)
        return _Rows(self.index[rows], self.prompt[rows], self.done[rows], cache, mask)


class _Run:
    """One batch of prompts: a prefill, then the decoding of their samples from copies of its cache."""

    def __init__(
        self,
        lm: LanguageModel,
        jobs: Sequence[_Job],
        sampling: Sampling,
        progress: Progress,
        repeats: int,
        on_token: OnToken | None = None,
    ) -> None:
        self.lm, self.sampling, self.progress, self.on_token = lm, sampling, progress, on_token
        self.chats = [job.chat for job in jobs]
        self.stops, self.lengths, self.weights, self.prompts = (
            torch.tensor(values, device=lm.device, dtype=torch.long)
            for values in (
                sorted(stop_ids(lm)),
                [len(chat) for chat in self.chats],
                [len(job.prompts) * repeats for job in jobs],
                [job.prompts[0] for job in jobs],
            )
        )
        self.width = max(len(chat) for chat in self.chats)
        self.owner, self.waiting = torch.arange(len(jobs), device=lm.device), 0
        self.named: tuple[Tensor | None, Sequence[str | None]] = (None, ())
        self.passes = Passes(self.chats, self.width, lm.device)
        state_space = "cache_params" in inspect.signature(lm.base.forward).parameters
        self.cache_name = "cache_params" if state_space else "past_key_values"

    def adapters(self, of_chats: Sequence[str | None]) -> Sequence[str | None]:
        """Return the adapter of every row of the current pass; asked once per adapted module, looked up once."""
        owner, names = self.named
        if owner is not self.owner:
            names = [of_chats[prompt] for prompt in self.prompts[self.owner].tolist()]
            self.named = self.owner, names
        return names

    @torch.inference_mode()
    def answers(self, edits: Sequence[Edit], draws: int, batch_size: int) -> list[list[int]]:
        """Return the token ids of every answer, ordered by (prompt, draw)."""
        shape = (len(self.chats), draws, self.sampling.max_new_tokens)
        tokens = torch.full(shape, -1, device=self.lm.device)
        with editing(self.lm, edits, self.passes, rows=lambda: self.prompts[self.owner]):
            logits, prefix = self._prefill()
            for first in range(0, draws, batch_size):
                samples = range(first, min(draws, first + batch_size))
                rows, decoding = self._continued(prefix, len(samples))
                with decoding:
                    self._decode(logits, rows, samples, tokens[:, first : samples.stop])
        return [[token for token in row if token >= 0] for row in tokens.flatten(0, 1).tolist()]

    def _prefill(self) -> tuple[Float[Tensor, "prompt vocab"], _Rows]:
        """Run the left-padded prompts; without padding no mask is passed, because attention is then faster."""
        pad: Any = self.lm.tokenizer.pad_token_id
        ids, mask = pad_left(self.chats, pad, self.lm.device)
        padded = None if bool(mask.all()) else mask.bool()
        cache = new_cache(self.lm.base)
        logits = self._forward(ids, padded, position_ids(mask), cache)
        if padded is not None:
            padded = torch.nn.functional.pad(padded, (0, self.sampling.max_new_tokens), value=True)
        done = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        return logits, _Rows(self.owner, self.owner, done, filled_cache(self.lm.base, cache), padded)

    def _continued(self, prefix: _Rows, n: int) -> tuple[_Rows, AbstractContextManager[None]]:
        """Return ``n`` rows per prompt that continue from its cache, and the context in which they decode."""
        rows, room = prefix.index.repeat_interleave(n), self.sampling.max_new_tokens - 1
        if not can_share(self.lm.base, prefix.cache, room):
            return prefix.take(rows, room), nullcontext()
        cache = share_prefix(prefix.cache, rows, prefix.mask, room=room)
        return _Rows(rows, rows, prefix.done[rows], cache, None), shared_attention(self.lm.base)

    def _forward(self, ids: Tensor, mask: Tensor | None, places: Tensor, cache: Cache) -> Float[Tensor, "batch vocab"]:
        """Return the logits after the last token of each row."""
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": places, self.cache_name: cache}
        return kept_logits(self.lm, 1, **inputs, use_cache=True)[:, 0]

    def _decode(self, logits: Tensor, rows: _Rows, samples: range, out: Int[Tensor, "prompt sample token"]) -> None:
        """Write one answer per row into ``out``.

        Each step chooses a token for every row, then feeds it. Finished rows go on as dummies until they are a quarter
        of the batch, because removing rows copies the cache.
        """
        steps, every = self.sampling.max_new_tokens, 1 if logits.device.type == "cpu" else SYNC_EVERY
        u = torch.cat([uniforms(self.sampling.seed, c.token_ids, samples, steps) for c in self.chats]).to(logits.device)
        rows.index = torch.arange(len(u), device=logits.device)
        tokens, logits = torch.full(u.shape, -1, device=logits.device), logits[rows.prompt]
        self.waiting, worst = int(self.weights[rows.prompt].sum()), logits.new_zeros(())
        for step in range(steps):
            worst = worst + logits.amax(-1).sum() * 0  # not a number, from the first logit on that is not finite
            if step % every == 0 or step + 1 == steps:
                self._check_finite(worst, logits, rows, step)
            new = choose(logits, u[rows.index, step], self.sampling)
            tokens[rows.index, step] = torch.where(rows.done, -1, new)
            self._tell(tokens[:, step], samples)
            rows.done |= torch.isin(new, self.stops)
            if step + 1 == steps:
                break
            if step % every == 0:
                rows, new = self._without_finished(rows, new, steps - 1 - step)
                if len(new) == 0:
                    break
            logits = self._step(rows, new, step)
        self.progress(self.waiting)
        out.copy_(tokens.unflatten(0, (-1, len(samples))))

    def _tell(self, column: Int[Tensor, " answer"], samples: range) -> None:
        """Report the new tokens of the answers that go on."""
        for index, token in enumerate(column.tolist() if self.on_token else ()):
            if token >= 0 and self.on_token:
                self.on_token(int(self.prompts[index // len(samples)]), samples[index % len(samples)], token)

    def _check_finite(self, worst: Tensor, logits: Tensor, rows: _Rows, step: int) -> None:
        if not bool(worst.isfinite()):
            row = int((~logits.amax(-1).isfinite()).int().argmax())
            chat = self.chats[int(rows.prompt[row])]
            where = f"new token {step} of prompt {int(self.prompts[rows.prompt[row]])} ({chat.text[:60]!r})"
            raise ValueError(f"generate: the logits are not finite in {self.lm.dtype} at {where}")

    def _without_finished(self, rows: _Rows, new: Tensor, room: int) -> tuple[_Rows, Tensor]:
        """Report the progress; remove the finished rows once they are a quarter of the batch."""
        keep = (~rows.done).nonzero()[:, 0]
        waiting = int(self.weights[rows.prompt[keep]].sum())
        self.progress(self.waiting - waiting)
        self.waiting = waiting
        return (rows, new) if len(keep) > 0.75 * len(new) else (rows.take(keep, room), new[keep])

    def _step(self, rows: _Rows, new: Tensor, step: int) -> Float[Tensor, "batch vocab"]:
        """Feed one new token per row."""
        self.owner, self.passes.step = rows.prompt, step
        mask = None if rows.mask is None else rows.mask[:, : self.width + step + 1]
        return self._forward(new[:, None], mask, (self.lengths[rows.prompt] + step)[:, None], rows.cache)
