"""Ranges of settings: stated in the annotation of a field, checked by one function.

samples: AtLeastOne = 10
"""

import dataclasses
import re
import typing
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, MinLen

AtLeastOne = Annotated[int, Ge(1)]
NotNegative = Annotated[int, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
Positive = Annotated[float, Gt(0)]


def check_fields(config: Any) -> None:
    """Check the fields of a dataclass whose annotations state a range, a least length or a choice of values.

    Raises:
        ValueError: If a value is outside; names the field, the value and what was expected.
    """
    from pydantic import TypeAdapter, ValidationError

    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        if not _restricted(hint := hints[field.name]):
            continue
        value = getattr(config, field.name)
        try:
            TypeAdapter(hint).validate_python(value, strict=True)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, (field.name, *problem["loc"])))
            raise ValueError(f"{where} {problem['input']!r}: {_expectation(problem['msg'])}") from None


def _expectation(message: str) -> str:
    """Return what was expected, from a message such as "Tuple should have at least 1 item after validation, not 0"."""
    return re.sub(r"^\w+ should (be|have) (.*?)( after validation, not \d+)?$", r"expected \2", message)


def _restricted(hint: Any) -> bool:
    """Tell whether an annotation states a range, a least length or a choice of values, at any depth."""
    if typing.get_origin(hint) is Annotated:
        base, *metadata = typing.get_args(hint)
        return any(isinstance(m, Ge | Gt | Le | MinLen) for m in metadata) or _restricted(base)
    return typing.get_origin(hint) is typing.Literal or any(_restricted(inner) for inner in typing.get_args(hint))
