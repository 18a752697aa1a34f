"""Projections of single tokens on g and on the trigger's feature, in one unit and from one zero, for heat maps.

The unit is the mean residual norm of the last prompt token without a text. Zero is, on g, the mean of those tokens; on
the trigger's feature the mean of unrelated texts, which a clamp goes to.

Not evidence for: use of a direction by the model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from experiments.directions.geometry import DirectionSet
from interp.analysis.tokens import answered, token_projections
from interp.chat import Chat
from interp.edits import Edit
from interp.models import LanguageModel
from interp.sites import Site

FEATURE = "trigger"
READ = ("g", FEATURE)


@dataclass(frozen=True, eq=False)
class TokenScale:
    """Where tokens are read, onto what, and what reads zero and one."""

    site: Site
    units: Mapping[str, Float[Tensor, " d_model"]]
    zeros: Mapping[str, float]
    norm: float

    def read(
        self, lm: LanguageModel, chat: Chat, token_ids: Sequence[int], edits: Sequence[Edit] = ()
    ) -> dict[str, Any]:
        """Return pieces, parts and, by direction, values of a prompt and its answer, with the active adapter."""
        row = token_projections(lm, answered(chat, token_ids), self.site, self.units, edits=edits)
        values = {n: [round((v - self.zeros[n]) / self.norm, 3) for v in row.values[n]] for n in self.units}
        return {"layer": self.site.layer, "pieces": list(row.pieces), "parts": list(row.parts), "values": values}


def token_scale(
    found: DirectionSet,
    site: Site,
    last: Float[Tensor, "prompt d_model"],
    names: Collection[str] = READ,
) -> TokenScale:
    """Return the scale at a block output.

    Args:
        found: Directions of a geometry run.
        site: Block output.
        last: Last prompt tokens there, without a text.
        names: Which of ``READ`` there are.
    """
    points = {"g": last.mean(0), **({FEATURE: found[f"{FEATURE}_target/{site}"].vector} if FEATURE in names else {})}
    units = {name: found[f"{name}/{site}"].unit for name in READ if name in names}
    zeros = {name: float(points[name] @ unit) for name, unit in units.items()}
    return TokenScale(site, units, zeros, float(last.norm(dim=1).mean()))
