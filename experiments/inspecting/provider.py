"""Organisms, with or without edits, as a model provider of Inspect: `--model semcon/ORGANISM`.

Answers are sampled by the suite itself (``interp.generation``): same template, same token ids, same random streams. A
request that comes alone waits a moment for others; all that wait are answered in one batch, and one batch runs at a
time. The n-th request for equal messages under equal settings gets the n-th answer; a request may also name its number
(``records.DRAW``). Nothing is asked of any server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Le
from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput, ModelUsage
from inspect_ai.tool import ToolChoice, ToolInfo

from experiments.answers.subject import Subject, find_subject
from experiments.behaviour.dose import chosen_dose
from experiments.cli.placement import Placement
from experiments.demo.request import MOST_ALPHA, OWN, Positions, Request
from experiments.demo.scene import Scene, dose_experiment, finished_adapter, finished_run, load_scene, with_directions
from experiments.directions.geometry import Geometry
from experiments.inspecting.batches import Batches
from experiments.inspecting.extra import AT_ONCE, refusals
from experiments.inspecting.records import DRAW, DRAWS, TRIGGER, output_of
from experiments.protocol import CHOSEN, load_protocol
from experiments.spec import identity
from interp.runs.checks import AtLeastOne
from interp.runs.configs import jsonable
from interp.runs.reading import validated
from interp.runs.run import read_manifest, runs_root
from interp.triggers import Trigger, moved, place

if TYPE_CHECKING:
    from interp.chat import Chat
    from interp.edits import Edit
    from interp.generation import Completion, Sampling

REFUSED = (
    *("stop_seqs", "top_k", "num_choices", "frequency_penalty", "presence_penalty", "logit_bias", "best_of"),
    *("logprobs", "top_logprobs", "prompt_logprobs", "response_schema"),
)
"""Options of a request that are not implemented, and therefore refused."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What stands after ``-M``."""

    questions: Path | None = None
    """Questions of a real model (YAML)."""
    judge: str = "oracle"
    """Judge that chose the dose."""
    template_option: str | tuple[str, ...] = ()
    """Options of the chat template, such as enable_thinking=false, after commas."""
    runs: Path | None = None
    """Folder of all runs."""
    device: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    batch_tokens: AtLeastOne | None = None
    condition: str | None = None
    """Condition whose first text is placed around every last user message, for the tasks of others."""
    text: str | None = None
    """Any text in its place."""
    placement: Literal["system", "prefix", "suffix", "wrap"] | None = None
    """Where the text goes; by default where the trigger goes."""
    clamp: bool = False
    """Whether the trigger's feature is clamped to the mean of unrelated texts, at the text's own tokens."""
    ablate: bool = False
    """Whether g is ablated, at every layer and token."""
    alpha: Annotated[float, Ge(-MOST_ALPHA), Le(MOST_ALPHA)] = 0.0
    """Dose of g, in mean residual norms."""
    layer: Annotated[int, Ge(0)] | None = None
    """Layer at which g is added."""
    positions: Positions = "answer"
    """Tokens to which g is added."""
    random: bool = False
    """Whether random directions take the place of all of these: the control."""

    @property
    def places(self) -> bool:
        """Whether it places a text."""
        return self.condition not in (None, "off") or self.text is not None

    @property
    def edits(self) -> str:
        """What is edited, in a few words; empty for nothing."""
        added = f"add_g {self.alpha:g} at layer {self.layer}, {self.positions}"
        named = {"clamp_trigger": self.clamp, "ablate_g": self.ablate, added: bool(self.alpha)}
        names = " + ".join(name for name, wanted in named.items() if wanted)
        return f"random for {names}" if names and self.random else names

    def place(self) -> None:
        """Set device, dtype and batches for this process, as the options of every command do.

        Raises:
            ValueError: If this machine has no such device; nothing is set then.
        """
        from interp.loading import find_device

        if self.device is not None:
            find_device(self.device)
        Placement(device=self.device, dtype=self.dtype, batch_tokens=self.batch_tokens).apply()

    def request(self) -> Request:
        """Return the edits in the form of the demo, which makes them."""
        edits: dict[str, Any] = {"clamp": self.clamp, "ablate": self.ablate, "alpha": self.alpha, "random": self.random}
        return Request(question="?", condition=OWN, text="?", layer=self.layer or 0, positions=self.positions, **edits)


@dataclass(frozen=True)
class _Wanted:
    """One answer that somebody waits for."""

    messages: tuple[tuple[str, str], ...]
    text: str | None
    """Text of the condition in the messages."""
    sampling: Sampling
    draw: int | None
    """Number of the answer; None for the next one."""
    draws: int
    """Answers to the same prompt that will be asked for."""


class OrganismModel(ModelAPI):
    """An organism at its chosen dose, as a model of Inspect. Its weights are loaded when it is first asked."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008
        **model_args: Any,
    ) -> None:
        """Look the organism up.

        Raises:
            PrerequisiteError: If there is no such organism, it is not trained yet, or an argument is wrong; one line.
        """
        super().__init__(model_name, base_url, api_key, [], config)
        with refusals():
            self.settings = _read_settings(model_args)
            self.settings.place()
            options = self.settings.template_option
            options = tuple(options.split(",")) if isinstance(options, str) else options
            self.subject = find_subject(model_name, self.settings.questions, self.settings.judge, options)
            self.root = self.settings.runs or runs_root()
            self._check()
        self.batches = Batches[_Wanted, ModelOutput](self._answers)
        self._asked: Counter[Any] = Counter()
        self._drawn: dict[Any, list[Completion]] = {}

    def _check(self) -> None:
        """Refuse what could not be sampled from.

        Raises:
            ValueError: If the adapter is not trained, the directions of an edit are not measured, or a text is missing.
        """
        subject, settings = self.subject, self.settings
        if subject.organism.tuned and finished_adapter(subject, self.root) is None:
            run = f"run `semcon em-rate --organism {self.model_name}` first"
            if other := _other_protocol(subject, self.root):
                raise ValueError(
                    f"organism {subject.name}: its dose was chosen under protocol {other}, not "
                    f"{load_protocol().label}; set {CHOSEN} to that protocol's file, or {run}"
                )
            raise ValueError(f"organism {subject.name}: not trained yet in {self.root}; {run}")
        if settings.edits and finished_run(Geometry(subject=subject), self.root) is None:
            raise ValueError(
                f"edits: the directions are not measured yet; run `semcon geometry --organism {self.model_name}` first"
            )
        if bool(settings.alpha) != (settings.layer is not None):
            raise ValueError("alpha, layer: name both, the dose of g and where it is added")
        if settings.random and not settings.edits:
            raise ValueError("random: it takes the place of an edit, and there is none")
        _ = self.context

    @cached_property
    def context(self) -> tuple[str, Trigger] | None:
        """The text that is placed around every last user message, and where it goes; None for none.

        Raises:
            ValueError: If the condition has no text, or two texts are named.
        """
        settings = self.settings
        if not settings.places:
            return None
        if settings.condition and settings.text:
            raise ValueError("condition, text: name one of them")
        trigger = self.subject.trigger
        if settings.text:
            trigger = trigger or Trigger(name="text", text=settings.text, placement="system")
            variants = (settings.text,)
        else:
            trigger = self.subject.own_trigger
            variants = trigger.variants(str(settings.condition))
        if not variants:
            raise ValueError(f"condition: {trigger} has no text for {settings.condition!r}")
        return variants[0], moved(trigger, settings.placement) if settings.placement else trigger

    def label(self) -> str:
        """Return the organism's name, and what is edited."""
        return self.subject.name + (f" ({self.settings.edits})" if self.settings.edits else "")

    def dose(self) -> int | None:
        """Return the dose of its adapter; None for a base or a finished adapter."""
        return chosen_dose(self.subject, self.root)

    def max_connections(self) -> int:
        """Return how many requests may wait at once."""
        return AT_ONCE

    async def count_text_tokens(self, text: str) -> int:
        """Return the number of tokens of a text, by the model's own tokenizer: Inspect's needs the internet."""
        return len(self.scene.lm.tokenizer(text)["input_ids"])

    def connection_key(self) -> str:
        """Return what tells its requests apart from those of other organisms."""
        return self.model_name

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Return one answer.

        Raises:
            ValueError: If the request wants what is not implemented.
        """
        if tools:
            raise ValueError(f"{self.model_name}: it calls no tools")
        if wanted := next((name for name in REFUSED if getattr(config, name) is not None), None):
            raise ValueError(f"{self.model_name}: option {wanted} is not implemented")
        return await self.batches.ask(self._wanted(input, config))

    def _wanted(self, messages: Sequence[ChatMessage], config: GenerateConfig) -> _Wanted:
        from interp.generation import Sampling

        told = messages[-1].metadata or {}
        text = told.get(TRIGGER)
        plain = [(m.role, m.text) for m in messages]
        if self.context is not None:
            plain, text = _placed(plain, *self.context), self.context[0]
        temperature = load_protocol().sampling.temperature if config.temperature is None else config.temperature
        sampling = Sampling(
            max_new_tokens=config.max_tokens or self.subject.amount.max_new_tokens,
            temperature=temperature,
            top_p=1.0 if config.top_p is None else config.top_p,
            seed=config.seed or 0,
        )
        return _Wanted(tuple(plain), text, sampling, told.get(DRAW), told.get(DRAWS, 1))

    @cached_property
    def scene(self) -> Scene:
        """The loaded model, with its directions where it is edited."""
        scene = load_scene(self.subject, self.root)
        return with_directions(scene, self.root) if self.settings.edits else scene

    @cached_property
    def _edits(self) -> list[Edit]:
        return self.scene.edits(self.settings.request()) if self.settings.edits else []

    def _answers(self, batch: Sequence[_Wanted]) -> list[ModelOutput]:
        """Answer some requests, each with the answer of its number; a prompt's answers are sampled together."""
        chats = [self._chat(wanted) for wanted in batch]
        keys = [(wanted.sampling, chat.token_ids) for wanted, chat in zip(batch, chats, strict=True)]
        numbers = [self._number(key, wanted) for key, wanted in zip(keys, batch, strict=True)]
        missing: dict[Any, tuple[Chat, int]] = {}
        for key, wanted, chat, number in zip(keys, batch, chats, numbers, strict=True):
            n = max(number + 1, wanted.draws, missing.get(key, (chat, 0))[1])
            if len(self._drawn.get(key, ())) <= number:
                missing[key] = (chat, n)
        self._draw(missing)
        return [
            self._output(self._drawn[key][number], len(chat))
            for key, number, chat in zip(keys, numbers, chats, strict=True)
        ]

    def _chat(self, wanted: _Wanted) -> Chat:
        from interp.chat import encode_chat

        messages = [{"role": role, "content": content} for role, content in wanted.messages]
        marks = {"trigger": wanted.text} if wanted.text else {}
        return encode_chat(self.scene.lm.tokenizer, messages, marks=marks)

    def _number(self, key: Any, wanted: _Wanted) -> int:
        if wanted.draw is not None:
            return wanted.draw
        self._asked[key] += 1
        return self._asked[key] - 1

    def _draw(self, missing: dict[Any, tuple[Chat, int]]) -> None:
        """Sample the answers to some prompts; those with equal settings and equal edits in one call."""
        from experiments.removal.edits import trigger_only
        from interp.generation import generate

        groups: dict[Any, list[Any]] = {}
        for key, (chat, n) in missing.items():
            groups.setdefault((key[0], n, "trigger" in chat.spans), []).append((key, chat))
        for (sampling, n, marked), group in groups.items():
            edits = [edit for edit in self._edits if marked or not trigger_only([edit])]
            chats = [chat for _, chat in group]
            completions = generate(
                self.scene.lm, chats, n_samples=n, sampling=self._fitting(sampling, chats), edits=edits
            )
            for i, (key, _) in enumerate(group):
                self._drawn[key] = completions[i * n : (i + 1) * n]

    def _fitting(self, sampling: Sampling, chats: Sequence[Chat]) -> Sampling:
        """Shorten answers to what the context leaves room for, as the suite does; they count as not finished."""
        from dataclasses import replace

        context = self.scene.lm.context
        room = sampling.max_new_tokens if context is None else context - max(map(len, chats))
        return replace(sampling, max_new_tokens=min(sampling.max_new_tokens, room)) if room >= 1 else sampling

    def _output(self, completion: Completion, n_prompt: int) -> ModelOutput:
        n = len(completion.token_ids)
        return output_of(
            self.model_name,
            completion.text,
            finished=completion.finished,
            with_thoughts=completion.with_thoughts,
            usage=ModelUsage(input_tokens=n_prompt, output_tokens=n, total_tokens=n_prompt + n),
        )


def _other_protocol(subject: Subject, root: Path) -> str | None:
    """Return the protocol of a finished choice of the dose that is the subject's in all else; None if there is none."""
    experiment = dose_experiment(subject)
    wanted = identity(experiment)
    first, _, last = str(wanted["version"]).split("/")
    for folder in sorted((root / experiment.name).glob("*/")):
        manifest = read_manifest(folder)
        version, protocol, depends = str(manifest.get("version", "//")).split("/")
        same = (version, depends, manifest.get("config")) == (first, last, jsonable(wanted["config"]))
        if same and manifest.get("status") == "complete":
            return protocol
    return None


def _read_settings(given: dict[str, Any]) -> Settings:
    settings, faults = validated(Settings, given)
    if faults:
        raise ValueError(f"-M {'; '.join(fault.strip() for fault in faults)}")
    return settings


def _placed(messages: Sequence[tuple[str, str]], text: str, trigger: Trigger) -> list[tuple[str, str]]:
    """Return messages with a text placed around the last one; a system text goes before one that is there."""
    *earlier, (_, question) = messages
    placed = [(m["role"], m["content"]) for m in place(question, text, trigger)]
    if placed[0][0] == "system" and earlier and earlier[0][0] == "system":
        return [("system", f"{text}{trigger.separator}{earlier[0][1]}"), *earlier[1:], *placed[1:]]
    return [*placed[:-1], *earlier, placed[-1]]
