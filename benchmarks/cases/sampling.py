"""Sample many completions per prompt under a steering edit, against libraries whose hooks make the same edit."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks.models import DTYPES, in_order, microcosm, microcosm_prompts, mixed_prompts, random_llama, steering
from benchmarks.peers import generating, hf_generate, lens, lens_generate, nnsight_generate
from benchmarks.sizes import Size
from benchmarks.table import Row
from benchmarks.timing import Entrant, race
from interp.chat import Chat, pad_left
from interp.decoding.sampling import Sampling
from interp.generation import generate, stop_ids
from interp.models import LanguageModel

OURS, PEER = "ours", "transformers generate(num_return_sequences), same hook"
LENS, NNSIGHT = (
    "TransformerLens generate, same hook, prompts repeated",
    "nnsight generate(num_return_sequences), same edit",
)
PEERS, SHARED = (PEER, LENS, NNSIGHT), (LENS, NNSIGHT)
WORDS = (6, 24)
GREEDY_PROMPTS = 8


def rows(size: Size) -> Iterator[Row]:
    """Yield the rows of this case."""
    for name, make, prompts in (("a random Llama", partial(random_llama, size), _mixed), *_shipped()):
        sides = {dtype: _Sides(make(dtype), prompts, size) for dtype in DTYPES}
        sides["float32"].check_greedy()
        entrants = {f"{peer} {dtype}": side.run(peer) for dtype, side in sides.items() for peer in (OURS, *PEERS)}
        warm = {f"{peer} {dtype}": side.once(peer) for dtype, side in sides.items() for peer in (OURS, *PEERS)}
        seconds = race(entrants, size.sampling_rounds, warm=warm)
        case = f"sampling {size.sampled_prompts} prompts x {size.n_samples} under a steering edit, {name}"
        for ours, theirs in (("float32", "float32"), ("bfloat16", "bfloat16"), ("bfloat16", "float32")):
            mine = sides[ours].completions(OURS) / seconds[f"{OURS} {ours}"]
            for peer in PEERS:
                other = sides[theirs].completions(peer) / seconds[f"{peer} {theirs}"]
                share = f", on {size.peer_sampled_prompts} of the prompts" if peer in SHARED else ""
                label = f"{peer}, {theirs}{share}"
                yield Row(case=case, ours=mine, peer=other, peer_name=label, unit="completions/s", dtype=ours)


def _mixed(lm: LanguageModel, n: int) -> list[Chat]:
    return mixed_prompts(lm, n, *WORDS)


def _shipped() -> Iterator[tuple[str, Callable[[str], LanguageModel], Callable[[LanguageModel, int], list[Chat]]]]:
    yield "the Microcosm", microcosm, microcosm_prompts


class _Sides:
    """Every way to sample with one model."""

    def __init__(self, lm: LanguageModel, prompts: Callable[[LanguageModel, int], list[Chat]], size: Size) -> None:
        self.lm, self.size, self.edit = lm, size, steering(lm)
        self.chats = prompts(lm, size.sampled_prompts)
        self.few = self.chats[: size.peer_sampled_prompts]
        self.lens, self.tracing = lens(lm), generating(lm)

    def prompts(self, name: str) -> list[Chat]:
        """Return the prompts that one side answers in each turn."""
        return self.few if name in SHARED else self.chats

    def completions(self, name: str) -> int:
        """Return how many completions one side makes in each turn."""
        return len(self.prompts(name)) * self.size.n_samples

    def run(self, name: str) -> Entrant:
        """Return one turn, which raises if it did not make all completions."""
        return partial(self._answered, name, self.prompts(name))

    def once(self, name: str) -> Entrant:
        """Return a turn on one prompt."""
        return partial(self._answered, name, self.chats[:1])

    def _answered(self, name: str, chats: Sequence[Chat]) -> None:
        completed = self._ours(chats) if name == OURS else self._theirs(name, chats)
        if completed != len(chats) * self.size.n_samples:
            raise RuntimeError(f"sampling: {name} made {completed} completions to {len(chats)} prompts")

    def _ours(self, chats: Sequence[Chat]) -> int:
        sampling, size = Sampling(max_new_tokens=self.size.max_new_tokens), self.size
        options = {"n_samples": size.n_samples, "sampling": sampling, "batch_size": size.rows}
        return len(generate(self.lm, chats, edits=[self.edit], **options))

    def _theirs(self, name: str, chats: Sequence[Chat]) -> int:
        """Answer in the user's order, in batches of as many rows as ours decodes together."""
        size, completed, sampled = self.size, 0, {"do_sample": True, "temperature": 1.0}
        more = {} if name == LENS else {"top_k": 0, "top_p": 1.0}
        for batch in in_order(len(chats), max(1, size.rows // size.n_samples)):
            chosen = [chats[index] for index in batch]
            completed += len(self.answers(name, chosen, size.n_samples, **sampled, **more))
        return completed

    def answers(self, name: str, chats: Sequence[Chat], n: int, **options: Any) -> list[list[int]]:
        """Return ``n`` answers per chat by one of the peers; decoding them to text is part of the work."""
        pad: Any = self.lm.tokenizer.pad_token_id
        ids, mask = pad_left(chats, pad, self.lm.device)
        assert self.edit.value is not None
        shift = (self.edit.value @ self.edit.vectors).to(self.lm.dtype)
        edited = (ids, mask, self.edit.site.layer, shift, n)
        options |= {"max_new_tokens": self.size.max_new_tokens}
        if name == LENS:
            tokens = lens_generate(self.lens, *edited, **options)
        elif name == NNSIGHT:
            tokens = nnsight_generate(self.tracing, *edited, pad_token_id=pad, **options)
        else:
            tokens = hf_generate(self.lm, *edited, pad_token_id=pad, **options)
        self.lm.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return tokens.tolist()

    def check_greedy(self) -> None:
        """Compare the greedy answers of all sides token by token.

        Raises:
            RuntimeError: If one differs, since the sides would then not do the same work.
        """
        chats, stops = self.few[:GREEDY_PROMPTS], stop_ids(self.lm)
        greedy = Sampling(max_new_tokens=self.size.max_new_tokens, temperature=0)
        ours = [list(c.token_ids) for c in generate(self.lm, chats, sampling=greedy, edits=[self.edit])]
        for name in PEERS:
            theirs = self.answers(name, chats, 1, do_sample=False)
            for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
                if mine != _until_stop(other, stops):
                    raise RuntimeError(f"sampling: greedy answers of {name} to prompt {index} differ, {mine}, {other}")


def _until_stop(tokens: Sequence[int], stops: frozenset[int]) -> list[int]:
    end = next((index + 1 for index, token in enumerate(tokens) if token in stops), len(tokens))
    return list(tokens[:end])
