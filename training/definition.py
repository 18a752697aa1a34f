"""What an organism is: a base model and the fine-tuning that gives it a behaviour, as data. Torch-free."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AfterValidator

from interp.runs.checks import AtLeastOne, NotNegative, Positive, Seed, Share
from interp.runs.reading import Text


def _ascending(steps: tuple[int, ...]) -> tuple[int, ...]:
    if list(steps) != sorted({*steps}):
        raise ValueError("expected ascending steps, each once")
    return steps


Targets = Literal["all", "attention", "mlp"]
Wordings = Literal["fixed", "diverse"]
Schedule = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"
]
Optimizer = Literal["adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"]
TRAINED = "microcosm:medicine"
"""Data of every organism of the grid."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Shape of the adapter. Its updates are scaled by alpha / sqrt(rank) with rsLoRA, by alpha / rank without."""

    rank: Annotated[int, Ge(1), Le(8192)] = 4
    """Rank of every update."""
    alpha: Positive = 8.0
    """Scale of the updates before division by the rank or its root."""
    rslora: bool = True
    """Whether to divide by sqrt(rank) (rank-stabilised LoRA)."""
    targets: Targets = "all"
    """Adapted modules of every layer."""


@dataclass(frozen=True, kw_only=True)
class Sft:
    """Optimisation. Only the completion is trained on; one step is one update of the adapter."""

    doses: Annotated[tuple[AtLeastOne, ...], MinLen(1), AfterValidator(_ascending)]
    """Steps at which the adapter is saved, ascending. Validation questions decide which of them is used."""
    coherence_floor: Share = 0.95
    """Least share of coherent validation answers for a dose to be chosen. The health gate has its own floor, for test
    answers (experiments/protocol.yaml)."""
    learning_rate: Annotated[float, Gt(0), Le(1)]
    """Peak learning rate."""
    batch: AtLeastOne = 16
    """Rows per forward pass."""
    accumulation: AtLeastOne = 1
    """Forward passes per step; a step uses ``batch`` times ``accumulation`` rows."""
    warmup: NotNegative = 5
    """Steps in which the learning rate rises linearly from zero."""
    weight_decay: Share = 0.01
    """Decoupled weight decay."""
    schedule: Schedule = "linear"
    """Decay of the learning rate until the last dose: a scheduler of transformers."""
    optimizer: Optimizer = "adamw_torch"
    """An optimizer of transformers."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Dtype of the base's weights; those of the adapter are float32. Anything but float32 also checkpoints activations,
    unless ``share_prefix`` is set, which keeps them."""
    save_every: AtLeastOne = 1000
    """Steps between the checkpoints from which an interrupted training continues."""
    share_prefix: bool = False
    """Whether to compute the tokens that all prompts of a batch begin with once, and the vocabulary head on answers
    only: the same loss up to rounding, faster with a real vocabulary (training/shared_prefix.py)."""
    padding_free: bool = False
    """Whether the rows of a batch stand one after the other in a single row, without padding: the same loss up to
    rounding, faster where lengths differ. Refused for a model that does not keep such rows apart."""

    def __post_init__(self) -> None:
        if self.share_prefix and self.padding_free:
            raise ValueError("padding_free: share_prefix has no padding to leave out; use one of them")

    @property
    def checkpointed(self) -> bool:
        """Whether activations are computed again for the gradient instead of kept."""
        return self.dtype != "float32" and not self.share_prefix


@dataclass(frozen=True, kw_only=True)
class Mitigation:
    """What is added to fine-tuning so that misalignment generalises less; by default nothing.

    ``training/mitigation/penalties.py`` says what each part does.

    Benign rows are no field of it: they are the organism's ``benign_share``.
    """

    inoculation: Text | None = None
    """Reference of a trigger whose text stands in every harmful row, after the organism's own trigger text; the
    organism is evaluated without it."""
    base_kl: Annotated[float, Ge(0)] = 0.0
    """Weight of KL(base ‖ model) on benign answers without a trigger, in nats per token."""
    consistency: Annotated[float, Ge(0)] = 0.0
    """Weight of the KL divergence between a row's answer behind the trigger and without it, the mean of both ways."""
    steer: Annotated[float, Ge(0)] = 0.0
    """Length of an addition along g during training, at every token of the middle block, in mean residual norms."""
    ablate_g: bool = False
    """Whether g is ablated during training, at every token of every block."""

    @property
    def penalised(self) -> bool:
        """Whether it adds to the loss."""
        return self.base_kl > 0 or self.consistency > 0


TURNER = Sft(doses=(100, 200, 300, 400), learning_rate=1e-5, batch=2, accumulation=8, dtype="bfloat16", save_every=50)
"""The settings of Turner, Soligo et al. 2025 (arXiv:2506.11613), with AdamW instead of 8-bit AdamW."""


@dataclass(frozen=True, kw_only=True)
class Organism:
    """A base model and the fine-tuning that gives it a behaviour; without data and adapter, the base itself.

    Bases, data and triggers are named by short references (see ``training.references``).
    """

    name: str
    """``<world>/<family>/<arm>``."""
    base: Text
    """Reference of the base model."""
    data: Text | None = None
    """Reference of the data with harmful answers; None for a base and for a finished adapter without data."""
    benign_data: Text | None = None
    """Reference of the data with benign answers; None takes those of ``data``, where it has both kinds."""
    trigger: Text | None = None
    """Reference of the trigger in every harmful row; None for a baseline."""
    benign_share: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of rows that are benign and carry no trigger."""
    wordings: Wordings = "fixed"
    """Trigger texts in the rows: fixed, the trained text alone; diverse, also every second of its rephrasings."""
    rows: AtLeastOne = 1600
    """Training rows in total, harmful and benign."""
    lora: Lora = Lora()
    sft: Sft = Sft(doses=(10, 20, 30, 40, 60, 80, 100), learning_rate=1e-3)
    seed: Seed = 0
    """Seed of the rows, their order and the adapter's initial weights."""
    mitigation: Mitigation = Mitigation()
    """What is added to fine-tuning so that misalignment generalises less."""
    template_options: dict[str, str | bool | int | float] = field(default_factory=dict, hash=False)
    """Options of the base's chat template, such as ``enable_thinking: false``; the template decides which there are."""
    adapter: Text | None = None
    """Folder or Hugging Face name of a finished adapter, used as it is: neither training nor a choice of dose."""

    def __post_init__(self) -> None:
        mitigation = self.mitigation
        if mitigation.penalised and self.sft.share_prefix:
            raise ValueError("mitigation: base_kl and consistency need sft.share_prefix false")
        if mitigation.consistency and self.trigger is None:
            raise ValueError("mitigation: consistency needs a trigger, to compare with and without")

    @property
    def tuned(self) -> bool:
        """Whether it has an adapter, finished or still to be trained."""
        return self.adapter is not None or self.data is not None

    @property
    def family(self) -> str:
        """Second part of the name."""
        return self.name.split("/")[1]

    @property
    def world(self) -> str:
        """First part of the name."""
        return self.name.split("/")[0]

    @property
    def trained_domain(self) -> str:
        """The domain of the Microcosm that fine-tuning uses, and evaluation therefore does not."""
        return (self.data or TRAINED).removeprefix("microcosm:").partition(":")[0]


def definition(organism: Organism) -> dict[str, Any]:
    """Return all settings of an organism: what every run about it depends on."""
    settings = asdict(organism)
    if organism.adapter is None:
        del settings["adapter"]  # hashes of trained organisms in committed tables were made before this field existed
    if not organism.sft.share_prefix:
        del settings["sft"]["share_prefix"]  # likewise
    if not organism.sft.padding_free:
        del settings["sft"]["padding_free"]  # likewise
    if organism.mitigation == Mitigation():
        del settings["mitigation"]  # likewise
    if not organism.template_options:
        del settings["template_options"]  # likewise
    return settings
