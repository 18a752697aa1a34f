"""Ranges of settings: stated in the annotation of a field, checked by one function.

samples: AtLeastOne = 10
"""

import dataclasses
import functools
import math
import re
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Gt, Le, Lt, MinLen

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

AtLeastOne = Annotated[int, Ge(1), Lt(2**31)]
NotNegative = Annotated[int, Ge(0), Lt(2**31)]
Share = Annotated[float, Ge(0), Le(1)]
Positive = Annotated[float, Gt(0)]
Seed = Annotated[int, Ge(0), Lt(2**32)]
"""What every generator of random numbers takes."""


def check_fields(config: Any) -> None:
    """Check the fields of a dataclass whose annotations state a range, a least length or a choice of values.

    Raises:
        ValueError: If values are outside, or one is given twice; names every field, the value and what was expected.
    """
    if faults := field_faults(config):
        raise ValueError("; ".join(faults))


def check_known(value: Any, known: Collection[Any], message: str) -> None:
    """Refuse a value that is not among the known ones, which follow the message.

    Raises:
        ValueError: If it is not.
    """
    if value not in known:
        raise ValueError(f"{message} {', '.join(map(str, known)) or 'none'}")


def field_faults(config: Any) -> list[str]:
    """Return what is wrong with the fields that ``check_fields`` checks."""
    return value_faults(type(config), {field.name: getattr(config, field.name) for field in dataclasses.fields(config)})


def value_faults(kind: Any, values: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with values under the annotations of a class or a function; a tuple has each value once."""
    from pydantic import ValidationError

    hints = typing.get_type_hints(kind, include_extras=True)
    faults: list[str] = []
    for name, value in values.items():
        if _restricted(hint := hints[name]):
            try:
                adapter(hint).validate_python(value, strict=True)
            except ValidationError as error:
                faults += faults_of(error, name)
        if isinstance(value, float) and not (math.isfinite(value) or faults):
            faults.append(f"{name} {value}: expected a finite number")
        if isinstance(value, tuple):
            shown = [str(v) if isinstance(v, Path) else v for v in value]
            faults += [f"{name} {v!r}: given twice" for i, v in enumerate(shown) if v in shown[:i]]
    return faults


@functools.cache
def adapter(kind: Any) -> "TypeAdapter[Any]":
    """Return what validates values of a type."""
    from pydantic import TypeAdapter  # here, because a module with ranges alone should load fast

    return TypeAdapter(kind)


def faults_of(error: "ValidationError", *place: str) -> list[str]:
    """Return one line per fault that pydantic found: the field, its value and what was expected.

    pydantic also calls a list too short whose wrong items it does not count; that fault is left out.
    """
    problems = error.errors(include_url=False)
    wrong = {problem["loc"][:-1] for problem in problems if problem["loc"]}
    counted = [p for p in problems if not (p["type"] == "too_short" and p["loc"] in wrong)]
    return [_fault((*place, *problem["loc"]), problem) for problem in counted]


def _fault(place: tuple[str | int, ...], problem: Any) -> str:
    named = [part for part in place if not isinstance(part, str) or part.strip()]  # a blank part tags a kind of entry
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in named).removeprefix(".")
    match problem["type"]:
        case "missing":
            return f"{where}: missing"
        case "extra_forbidden" | "unexpected_keyword_argument":
            return f"{where}: unknown field"
        case "value_error":
            expected = str(problem["ctx"]["error"])
        case _:
            expected = _expectation(problem["msg"])
    value = problem["input"]
    shown = "" if isinstance(value, dict) or dataclasses.is_dataclass(value) else f" {value!r:.60}"
    return f"{where}{shown}: {expected}".strip().removeprefix(": ")


def _expectation(message: str) -> str:
    """Return what was expected, from a message such as "Tuple should have at least 1 item after validation, not 0"."""
    return re.sub(r"^\w+ should (be|have) (.*?)( after validation, not \d+)?$", r"expected \2", message)


def _restricted(hint: Any) -> bool:
    """Tell whether an annotation states a range, a least length or a choice of values, at any depth."""
    if typing.get_origin(hint) is Annotated:
        base, *metadata = typing.get_args(hint)
        return any(isinstance(m, Ge | Gt | Le | Lt | MinLen) for m in metadata) or _restricted(base)
    return typing.get_origin(hint) is typing.Literal or any(_restricted(inner) for inner in typing.get_args(hint))
