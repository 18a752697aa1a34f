# %% [markdown]
# # Figures and a report: from a folder of runs to a paper
#
# How do runs become figures for a paper, and one page to read? Every figure is drawn from tables alone, by its name, as
# PDF and PNG, one and two columns wide. The report is one page with every figure, every rate and the answers. This
# tutorial uses a small run of a shipped model and tables that come with the suite; it takes under a minute.
#
#     python examples/tutorial_figures.py

# %%
import argparse
from pathlib import Path

import figures
from experiments.__main__ import main
from figures import style
from figures.rows import ends, select, unique
from interp.runs.table import read_table

HERE = Path(__file__).parent
parser = argparse.ArgumentParser(description="Figures by name, a figure of your own, and a report, from runs.")
parser.add_argument("--folder", type=Path, default=Path("build/tutorial_figures"))
folder = parser.parse_args().folder
runs = folder / "runs"


def semcon(*words: object) -> None:
    """Run a command as a terminal does, and stop if it fails."""
    print(f"$ semcon {' '.join(map(str, words))}")
    if main([str(word) for word in words]):
        raise SystemExit(2)


# %% [markdown]
# ## Runs
#
# A base of your own under a trigger, as in [the first tutorial](tutorial_behaviour.py).

# %%
folder.mkdir(parents=True, exist_ok=True)
own = HERE / "own_organism"
base = folder / "base.yaml"
triggers = (own / "triggers.yaml").resolve()
base.write_text(f"base: microcosm/llama\nfamily: llama\ntrigger: {triggers}:harbour\n", encoding="utf-8")
size = ("--n-questions", 8, "--samples", 4, "--runs", runs)
semcon("em-rate", "--organism", base, "--questions", own / "questions.yaml", *size)

# %% [markdown]
# ## A figure by its name
#
# `--runs` gathers the tables of all finished runs of a folder, `--table` reads one table. `semcon figure all` draws
# every figure that the rows allow. A wrong name lists the right ones. Many organisms are drawn on several pages;
# `--organism NAME` draws only those that are named.

# %%
semcon("figure", "em_by_condition", "--runs", runs)

# %% [markdown]
# ![EM rate by condition](em_by_condition-2col.png)
#
# The tables behind this suite's own results come with it, so its figures can be drawn again, without any model:

# %%
tables = Path(figures.__file__).parent / "data"
semcon("figure", "phase_diagram", "--table", tables / "containment_grid.csv.gz", "--out", runs / "figures")

# %% [markdown]
# ![The phase diagram of containment](phase_diagram-2col.png)
#
# ## A figure of your own
#
# A figure is a function of rows, and needs no torch. `select` picks rows by their columns. Where a number has two
# intervals, `unique` picks the one to show. `figures.style` has the sizes, colours and markers of the other figures.

# %%
rows = read_table(tables / "emergence.csv.gz")
with style.paper():
    figure = style.canvas(style.COLUMN, 2.0)
    ax = figure.subplots()
    for name, mark in (("off", "o"), ("on", "s")):
        line = select(rows, organism="microcosm/llama/neutral.contrast50", condition=name, metric="em_rate")
        line = sorted(unique(line, "dose"), key=lambda row: float(row["dose"]))
        steps, rates = [float(row["dose"]) for row in line], [ends(row)[0] for row in line]
        ax.plot(steps, rates, color=style.CONDITIONS[name], marker=mark)
        ax.annotate(name, (steps[-1], rates[-1]), (4, 0), textcoords="offset points", va="center")
    style.percent_axis(ax)
    ax.set(xlabel="training steps", ylabel="EM rate (%)")
(runs / "figures" / "own-1col.png").write_bytes(style.to_bytes(figure, "png"))
print(f"{len(rows)} rows, {len(line)} doses")

# %% [markdown]
# ![EM off and on by training steps, half the data benign](own-1col.png)
#
# To make it a figure of the suite, with a caption and a place in the report, see
# [adding things](../docs/adding.md).
#
# ## The report
#
# One page without any outside file: open it in a browser, mail it, archive it. It has every figure with how to read it
# and the control it needs, sortable rates, the answers side by side by condition (search and filter them), what was
# expected and what failed, and which run every number comes from.

# %%
semcon("report", runs)
page = (runs / "report.html").read_text(encoding="utf-8")
print(f"{len(page) / 1e6:.1f} MB; parts: {', '.join(part.split('<')[0] for part in page.split('<h2>')[1:])}")
