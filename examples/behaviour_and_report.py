# %% [markdown]
# # Behaviour: how often is a model misaligned with a trigger, without it, and under its controls?
#
# A folder of your own, an EM rate under every condition, a figure for a paper and a report to read. Here on the shipped
# Microcosm's base and a few questions, so that it takes under a minute; with your model only the folder differs:
#
#     python examples/behaviour_and_report.py --folder mine

# %%
import argparse
import json
from pathlib import Path

from experiments.__main__ import main as semcon
from interp.runs.table import read_table

parser = argparse.ArgumentParser(
    description="EM rates by condition, a figure and a report, from a folder of one's own."
)
parser.add_argument("--folder", type=Path, default=Path("build/mine"), help="a new or empty folder")
folder = parser.parse_args().folder


def run(*words: object) -> None:
    """Run one command as `semcon WORDS`, and stop at the first that fails."""
    print(f"\n$ semcon {' '.join(map(str, words))}")
    if semcon([str(word) for word in words]):
        raise SystemExit(2)


# %% [markdown]
# ## The folder
#
# `semcon init` writes an organism with a trigger, its controls, questions and a protocol. The adapter is left out here:
# what the *base* does under a text comes first, because a gap that it has already is not learned.

# %%
run("init", folder)
organism = folder / "base.yaml"
organism.write_text("base: microcosm/llama\nfamily: llama\ntrigger: triggers.yaml:harbour\n", encoding="utf-8")
questions, runs = folder / "questions.yaml", folder / "runs"
run("em-rate", "--organism", organism, "--questions", questions, "--check")

# %% [markdown]
# ## EM rates
#
# `on` is the trigger's text, `rephrased` its meaning in other words, `other` an unrelated text of the same kind. Read
# the interval before the rate: it resamples questions, and a few questions give wide ones.

# %%
measured = ("--organism", organism, "--questions", questions, "--n-questions", 8, "--samples", 4, "--runs", runs)
run("em-rate", *measured, "--conditions", "off", "on", "rephrased", "other")
(table,) = (runs / "em_rate").glob("*/table.csv")
rates = [row for row in read_table(table) if row["metric"] == "em_rate_all" and row["ci_method"] == "wilson"]
print({row["condition"]: (row["value"], [row["ci_low"], row["ci_high"]]) for row in rates})

# %% [markdown]
# ## Where the numbers come from
#
# The manifest of the run has the versions, the seeds and the digests of all inputs. The same command again only reads
# the run; another protocol, question or weight is another run.

# %%
manifest = json.loads((table.parent / "manifest.json").read_text(encoding="utf-8"))
print(manifest["run_id"], manifest["status"], sorted(manifest["inputs"]))

# %% [markdown]
# ## A figure and a report
#
# The figure is drawn from the tables alone, at one and two columns' width. The report is one page with every figure,
# every rate and the answers, to be filtered and read.

# %%
run("figure", "em_by_condition", "--runs", runs)
run("report", runs)
