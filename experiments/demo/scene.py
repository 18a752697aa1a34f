"""What the page stands on: the loaded organism, its directions, and what of it can be asked."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from experiments.answers.subject import Subject
from experiments.behaviour.dose import ADAPTER, Dose, chosen_adapter, chosen_dose
from experiments.behaviour.dose_preference import PreferenceDose
from experiments.demo.request import Request
from experiments.directions.contrasts import LAST, feature_pairs, measure_all, misalignment_pairs
from experiments.directions.geometry import DirectionSet, Geometry, found_directions
from experiments.directions.selection import candidates, edited_sites
from experiments.directions.token_scale import FEATURE, READ, TokenScale, token_scale
from experiments.removal.edits import feature_edits
from experiments.spec import Experiment, identity
from interp.adapters import active_adapter
from interp.chat import Chat, question_chat
from interp.directions import Direction
from interp.edits import Edit, ablate, add, random_control
from interp.models import LanguageModel
from interp.recording import record
from interp.runs.run import read_manifest, run_id, upstream_folder
from interp.sites import Site, resid_post
from training.loading import load_organism
from training.microcosm.world import Question
from training.pocket.corpus import ChoiceQuestion

FEW_QUESTIONS = 4
"""Validation questions from which directions are estimated where no geometry run is finished."""
MOST_KNOWN = 256
Say = Callable[[str], None]
"""Called with a line about the work in progress; what it raises ends the work."""


@dataclass(frozen=True, eq=False)
class Measured:
    """The directions at every layer, with the zero and the unit of a projection."""

    found: DirectionSet
    origin: str
    """Where they come from, for the page."""
    lacks: Mapping[str, str]
    """Why a direction is missing, by name."""
    scales: Mapping[Site, TokenScale]
    """How tokens are read at every block output; has the norm that is the unit of doses."""

    def has(self, name: str) -> bool:
        """Tell whether a direction was found."""
        return name not in self.lacks


@dataclass(frozen=True, eq=False)
class Scene:
    """A loaded organism. The base is the same model with its adapter switched off."""

    subject: Subject
    lm: LanguageModel
    untrained: bool
    """Whether its adapter is still to be trained."""
    measured: Measured | None = None
    known: dict[Hashable, Any] = field(default_factory=dict)
    """What models without edits said and preferred, by request: the latest ``MOST_KNOWN``."""

    def remember(self, key: Hashable, value: Any) -> None:
        """Keep what a request came to, and forget the oldest."""
        self.known.pop(key, None)
        self.known[key] = value
        while len(self.known) > MOST_KNOWN:
            del self.known[next(iter(self.known))]

    @property
    def arms(self) -> dict[str, str | None]:
        """The models that answer, by name: the adapter of each."""
        return {"base": None, **({"adapter": ADAPTER} if self.lm.adapters else {})}

    @cached_property
    def questions(self) -> dict[str, Question]:
        """Test questions by text; none if there is no file of them."""
        return {q.text: q for q in _optional(lambda: self.subject.questions("test"))}

    @cached_property
    def choices(self) -> dict[str, ChoiceQuestion]:
        """Test questions with reference answers, by text; none if there are none."""
        return {q.question: q for q in _optional(lambda: self.subject.choices("test"))}

    @property
    def judge(self) -> str | None:
        """Who judges answers; None if nobody can: the oracle knows the Microcosm alone."""
        reference, world = self.subject.judge_reference, self.subject.organism.world
        return None if self.subject.by_log_odds or (reference == "oracle" and world != "microcosm") else reference

    def chat(self, request: Request) -> Chat:
        """Return the prompt of a request."""
        return question_chat(self.lm.tokenizer, request.question, *request.around(self.subject.trigger))

    def edits(self, request: Request) -> list[Edit]:
        """Return the edits of a request, as ``semcon steer`` and ``semcon ablate`` make them.

        Raises:
            ValueError: If a direction or the layer is missing, or there is no text whose feature could be clamped.
        """
        site = self.site(request)
        if not request.edited:
            return []
        if self.measured is None:
            raise ValueError("edits: the directions are not measured yet")
        found = self.measured.found
        edits: list[Edit] = []
        if request.clamp:
            self._require(FEATURE)
            if request.around(self.subject.trigger)[0] is None:
                raise ValueError("clamp: the context has no text, so there is nothing to clamp; choose a context")
            edits += feature_edits(self.lm, found, FEATURE, 1)
        if request.ablate:
            self._require("g")
            blocks = resid_post(range(self.lm.n_layers))
            edits += [ablate(block, found[f"g/{block}"].vector, positions="all") for block in blocks]
        if request.alpha:
            self._require("g")
            dose = request.alpha * self.measured.scales[site].norm
            edits.append(add(site, found[f"g/{site}"].unit, coefficient=dose, positions=request.positions))
        if request.random:
            edits = [random_control(edit, seed, match="displacement") for seed, edit in enumerate(edits)]
        return edits

    def site(self, request: Request) -> Site:
        """Return the block output at which g is added and tokens are read.

        Raises:
            ValueError: If the model has no such layer.
        """
        self.lm.layer(request.layer)
        return Site("resid_post", request.layer)

    def _require(self, name: str) -> None:
        if self.measured and not self.measured.has(name):
            raise ValueError(f"{name}: {self.measured.lacks[name]}")


def _optional(questions: Callable[[], Sequence[Any]]) -> Sequence[Any]:
    try:
        return questions()
    except ValueError:  # a model without a question file: only questions of one's own
        return ()


# --- loading ----------------------------------------------------------------------------------------------------------


def load_scene(subject: Subject, root: Path) -> Scene:
    """Load an organism with its adapter if that is finished, else its base. Trains nothing."""
    adapter = finished_adapter(subject, root)
    untrained = adapter is None and subject.organism.tuned
    return Scene(subject, load_organism(subject.organism, {ADAPTER: adapter} if adapter else {}), untrained)


def train_scene(subject: Subject, root: Path, say: Say) -> Scene:
    """Train the adapter of an organism, choose its dose, and load it. An interrupted training continues."""
    from training.sft import train

    steps = max(subject.organism.sft.doses)
    train(subject.organism, root, progress=lambda step, _: say(f"training the adapter: step {step} of {steps}"))
    say("choosing the dose on validation questions")
    chosen_adapter(subject, root)
    return load_scene(subject, root)


def finished_adapter(subject: Subject, root: Path) -> Path | None:
    """Return the adapter of an organism at its chosen dose, if it is trained and chosen already."""
    organism = subject.organism
    if organism.adapter or not organism.tuned:
        return Path(organism.adapter) if organism.adapter else None
    run = finished_run(dose_experiment(subject), root)
    folders = [upstream_folder(root, name) for name in read_manifest(run).get("upstream", {})] if run else []
    if not folders or folders[0] is None:
        return None
    return folders[0] / f"dose-{chosen_dose(subject, root)}"  # checks the files' digests, and reads no trainer


def dose_experiment(subject: Subject) -> Dose | PreferenceDose:
    """Return the experiment that chooses the dose of an organism."""
    whole = subject.whole()
    return PreferenceDose(subject=whole) if subject.by_log_odds else Dose(subject=whole)


def finished_run(experiment: Experiment, root: Path) -> Path | None:
    """Return the folder of an experiment's run if it is complete; starts nothing."""
    folder = upstream_folder(root, run_id(experiment.name, **identity(experiment)))
    return folder if folder and read_manifest(folder).get("status") == "complete" else None


# --- directions -------------------------------------------------------------------------------------------------------


def with_directions(scene: Scene, root: Path) -> Scene:
    """Return the scene with the directions of a finished geometry run, else with estimates from few questions."""
    subject, lm = scene.subject, scene.lm
    geometry = Geometry(subject=subject) if subject.trigger else None
    if geometry and lm.adapters and (run := finished_run(geometry, root)):
        found, lacks = found_directions(geometry, root), {}
        origin = f"from the finished run geometry-{run.name}; the layer was chosen for g by its rule"
    else:
        found, lacks = _estimate(lm, replace(subject, n_questions=FEW_QUESTIONS), geometry)
        origin = (
            f"estimated now from {FEW_QUESTIONS} validation questions; semcon geometry --organism … uses all of "
            "them, and chooses the layer by a rule; here it is the middle one"
        )
    scales = _scales(scene, found, [name for name in READ if name not in lacks])
    return replace(scene, measured=Measured(found, origin if len(lacks) < len(READ) else "", lacks, scales))


def _estimate(lm: LanguageModel, few: Subject, geometry: Geometry | None) -> tuple[DirectionSet, dict[str, str]]:
    """Measure g and the trigger's feature as a geometry run does, from few questions; say why one is missing."""
    directions: dict[str, Direction] = {}
    lacks: dict[str, str] = {}
    makers = {
        "g": lambda: misalignment_pairs(lm, few, few.questions("validation"), 0)[:1],
        FEATURE: lambda: feature_pairs(lm, few.own_trigger, _control(geometry), few.questions("validation"))[:1],
    }
    for name, make in makers.items():
        try:
            if name == FEATURE:
                few.require_texts(rephrased=2, other=1)
            (recording,) = measure_all(lm, make(), sites := edited_sites(lm))
        except ValueError as error:
            lacks[name] = str(error)
            continue
        for site in sites:
            directions |= recording.directions(site)
    layers = candidates(lm.n_layers)
    return DirectionSet("", directions, {"g": layers[len(layers) // 2]}), lacks


def _control(geometry: Geometry | None) -> Any:
    assert geometry is not None  # an organism without a trigger is refused before
    return geometry.control


def _scales(scene: Scene, found: DirectionSet, names: Sequence[str]) -> dict[Site, TokenScale]:
    """Return how tokens are read at every block output, from prompts without a text."""
    few = replace(scene.subject, n_questions=FEW_QUESTIONS)
    texts = [q.text for q in _optional(lambda: few.questions("validation"))] or ["How are you?"]
    blocks = resid_post(range(scene.lm.n_layers))
    chats = [question_chat(scene.lm.tokenizer, text) for text in texts]
    with active_adapter(scene.lm, scene.arms.get("adapter")):
        recording = record(scene.lm, chats, blocks, [LAST])
    return {site: token_scale(found, site, recording.at(site, LAST), names) for site in blocks}
