"""What every figure module promises: its parts, its caption, a page's size, bytes that depend on the rows alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from figures import plots, style
from figures.plots import geometry, probe_auroc
from tests.figures.example_rows import CLUSTERS, everything, row

ROWS = everything()
MODULES = [plot.module() for plot in plots.REPORT]
ROOT = Path(__file__).parents[3]


def run(code: str, **environment: str) -> str:
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def drawn() -> dict[str, Figure]:
    return {plot.name: plot.module().draw(ROWS) for plot in plots.REPORT}


def test_figures_import_neither_torch_nor_pyplot():
    code = "import sys, figures.report\nfrom figures.plots import em_by_condition\n"
    code += "from tests.figures.example_rows import behaviour\nem_by_condition.draw(behaviour())\n"
    code += "print([m for m in sys.modules if m in ('torch', 'matplotlib.pyplot', 'transformers', 'sklearn')])"
    assert run(code).strip() == "[]"


def test_saving_again_gives_the_same_bytes(drawn):
    first, _, again = (style.to_bytes(drawn["ablation"], form) for form in ("png", "pdf", "png"))
    assert first == again


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_files_hold_no_date_and_fit_a_page(module, drawn):
    figure = drawn[module.__name__.rpartition(".")[2]]
    assert figure.get_figwidth() in (style.COLUMN, style.DOUBLE)
    assert figure.get_figheight() < 9
    assert b"CreationDate" not in style.to_bytes(figure, "pdf")
    assert b"Software" not in style.to_bytes(figure, "png")


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_no_rows_is_an_error_that_names_the_metric(module):
    with pytest.raises(ValueError, match=f"no row with metric {module.METRICS[0]}"):
        module.draw([row("base", experiment="em_rate", metric="something_else", condition="off")])


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_captions_say_counts_and_intervals(module):
    said = module.caption(ROWS)
    assert str(1000 if module is geometry else CLUSTERS) in said.replace(",", "")
    assert "n = " in said and "interval" in said
    assert "nan" not in said and "?" not in said


@pytest.mark.parametrize("module", [probe_auroc, geometry], ids=lambda m: m.__name__)
def test_three_panels_take_two_lines(module):
    more = [r for r in ROWS if r["trigger"] == "persona"]
    rows = [r | {"organism": "microcosm/llama/contrast50", "trigger": "scene"} for r in more]
    figure = module.draw([*ROWS, *rows])
    assert len(figure.axes) == 3
    assert figure.get_figheight() < 9
