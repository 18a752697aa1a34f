"""What the page asks for: a question in a context, the edits, how to sample. Checked before any work. Torch-free.

Text is bounded, but never changed: what a tokenizer would take for a control token stays text
(``interp.text.control``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from interp.runs.reading import validated
from interp.triggers import Trigger

MOST_CHARACTERS = 4000
"""Of the question, and of one's own text."""
MOST_BYTES = 64 * 1024
"""Of a whole request."""
MOST_SAMPLES = 100
MOST_ALPHA = 2.0
LONGEST = 160
"""Most tokens of an answer on the page; the answers of the experiments may be longer."""
OFF, OWN = "off", "own"
"""The contexts that no trigger defines: no text, and a text of the user's."""
Positions = Literal["last_prompt", "answer", "all"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One press of a button.

    Raises:
        ValueError: If a text is empty or too long; names the field.
    """

    question: str
    condition: str = OFF
    text: str = ""
    """Text of the context; one of the condition's, or any where the condition is ``own``."""
    alpha: Annotated[float, Ge(-MOST_ALPHA), Le(MOST_ALPHA)] = 0.0
    """Dose of g, in mean residual norms."""
    layer: Annotated[int, Ge(0), Le(10_000)] = 0
    """Layer at which g is added, and at which the tokens are read."""
    positions: Positions = "last_prompt"
    """Tokens to which g is added."""
    clamp: bool = False
    """Whether the trigger's feature is clamped to the mean of unrelated texts, at the text's own tokens."""
    ablate: bool = False
    """Whether g is ablated, at every layer and token."""
    random: bool = False
    """Whether random directions take the place of all of these: the control."""
    temperature: Annotated[float, Ge(0), Le(2)] = 1.0
    seed: Annotated[int, Ge(0), Le(2**31)] = 0
    longest: Annotated[int, Ge(1), Le(LONGEST)] = 60
    """Most tokens of an answer; the page is quick with few."""
    samples: Annotated[int, Ge(1), Le(MOST_SAMPLES)] = 20
    """Answers of each model, where rates are asked for."""

    def __post_init__(self) -> None:
        texts = {"question": self.question, **({"text": self.text} if self.condition != OFF else {})}
        for name, text in texts.items():
            if not text.strip():
                raise ValueError(f"{name}: it is empty; write one")
            if len(text) > MOST_CHARACTERS:
                raise ValueError(f"{name}: {len(text):,} characters; at most {MOST_CHARACTERS:,}")

    @property
    def edited(self) -> bool:
        """Whether any edit is made."""
        return bool(self.alpha) or self.clamp or self.ablate

    def around(self, trigger: Trigger | None) -> tuple[str | None, Trigger | None]:
        """Return the text of the context, and the trigger that says where it goes; a text of one's own goes there too.

        Raises:
            ValueError: If the trigger has no such text.
        """
        if self.condition == OFF:
            return None, None
        if self.condition == OWN:
            return self.text, trigger or Trigger(name="own", text=self.text, placement="system")
        if trigger is None or self.text not in trigger.variants(self.condition):
            raise ValueError(f"text: {self.text!r:.60} is no text of condition {self.condition!r:.20}")
        return self.text, trigger


def read_request(body: Any) -> Request:
    """Return the request in the JSON of a page.

    Raises:
        ValueError: If a field is unknown, missing, of another type or out of range; one line.
    """
    request, faults = validated(Request, body)
    if faults:
        raise ValueError("; ".join(fault.strip() for fault in faults))
    return request
