"""One module per figure: table rows in, a drawn figure out.

Every figure module has ``TITLE``, ``READING`` (how to read it), ``CONTROL`` (what must differ), ``METRICS``, and three
functions of the rows: ``wanted(rows)`` selects the rows it draws, ``draw(rows)`` returns a Figure, ``caption(rows)`` a
text. A new figure is a module here and a line in ``FIGURES``.
"""

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

ARMS = ("explaining", "neutral", "neutral.contrast50")


@dataclass(frozen=True)
class Plot:
    """A figure module, and where it is shown."""

    name: str
    table: str = ""
    """Committed table from which the gallery draws it; empty if the gallery does not show it."""
    arms: tuple[str, ...] = ()
    """Organisms that the gallery shows, of one family; all if none is named."""
    report: bool = True
    """Whether the report of a reproduction shows it."""
    room: str = ""
    """Folder of the module below this one."""

    def module(self) -> ModuleType:
        """Import the module."""
        return import_module(".".join(filter(None, ("figures.plots", self.room, self.name))))


FIGURES = (
    Plot("phase_diagram", "containment_grid"),
    Plot("em_by_condition"),
    Plot("preference", "pocket"),
    Plot("preference_steering"),
    Plot("grid_effects", "containment_grid"),
    Plot("emergence", "emergence"),
    Plot("projections"),
    Plot("geometry", "geometry", ARMS),
    Plot("probe_auroc"),
    Plot("dose_response", "mechanism", ARMS),
    Plot("ablation"),
    Plot("restoration", "mechanism", report=False),
    Plot("probe_map", "probes", ARMS[:1], report=False),
    Plot("patching", "patching", report=False),
    Plot("dose_box", "dose_grid", report=False, room="registered"),
    Plot("learned_gap", "trained_gate", report=False, room="registered"),
    Plot("mitigations", "mitigation", report=False, room="registered"),
    Plot("worlds", "world_ablation", report=False, room="registered"),
)
"""Every figure, in the order in which the report shows them."""
BY_NAME = {figure.name: figure for figure in FIGURES}
REPORT = tuple(figure for figure in FIGURES if figure.report)
