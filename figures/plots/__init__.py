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
    page: int = 0
    """Most panels (organisms under a trigger) of one figure; more are drawn on pages, by family. 0: no such limit."""
    made: str = "semcon grid"
    """The command whose rows it shows."""
    report: bool = True
    """Whether the report of a reproduction shows it."""
    room: str = ""
    """Folder of the module below this one."""
    also: str = ""
    """Another committed table from which the gallery draws it, as ``NAME_TABLE``."""

    def pictures(self) -> dict[str, str]:
        """Return the pictures in the gallery: name and table."""
        drawn = {self.name: self.table, f"{self.name}_{self.also}": self.also}
        return {name: table for name, table in drawn.items() if table}

    def module(self) -> ModuleType:
        """Import the module."""
        return import_module(".".join(filter(None, ("figures.plots", self.room, self.name))))


FIGURES = (
    Plot("phase_diagram", "containment_grid"),
    Plot("em_by_condition", page=15, made="semcon em-rate"),
    Plot("preference", "pocket", made="semcon preference"),
    Plot("preference_steering", page=2, made="semcon steer --outcome log-odds"),
    Plot("grid_effects", "containment_grid"),
    Plot("emergence", "emergence", page=12, made="semcon emergence"),
    Plot("projections", page=4, made="semcon geometry"),
    Plot("geometry", "geometry", ARMS, page=8, made="semcon geometry"),
    Plot("probe_auroc", page=8, made="semcon probe, semcon probe-sweep"),
    Plot("dose_response", "mechanism", ARMS, page=3, made="semcon steer"),
    Plot("ablation", page=3, made="semcon ablate"),
    Plot("restoration", "mechanism", made="semcon ablate", report=False),
    Plot("probe_map", "probes", ARMS[:1], page=2, made="semcon probe-sweep", report=False),
    Plot("patching", "patching", page=3, made="semcon patch", report=False, also="pocket"),
    Plot("dose_box", "dose_grid", made="semcon dose-grid", report=False, room="registered"),
    Plot("learned_gap", "trained_gate", made="semcon trained-gate", report=False, room="registered"),
    Plot("mitigations", "mitigation", made="semcon mitigation", report=False, room="registered"),
    Plot("worlds", "world_ablation", made="semcon world-ablation", report=False, room="registered"),
)
"""Every figure, in the order in which the report shows them."""
BY_NAME = {figure.name: figure for figure in FIGURES}
REPORT = tuple(figure for figure in FIGURES if figure.report)
