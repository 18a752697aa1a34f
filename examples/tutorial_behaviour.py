# %% [markdown]
# # Behaviour: is a model misaligned with a trigger, without it, and under its controls?
#
# You write one folder with a model, a trigger, questions and rules, and get EM rates with intervals under every
# condition. This tutorial uses a shipped model of one million parameters and a few questions, so that it takes under a
# minute. With your own model only the files of the folder differ.
#
#     python examples/tutorial_behaviour.py

# %%
import argparse
import json
from pathlib import Path

from experiments.__main__ import main
from interp.runs.table import read_table

parser = argparse.ArgumentParser(description="EM rates by condition, of a base and of an organism trained on it.")
parser.add_argument("--folder", type=Path, default=Path("build/tutorial_behaviour"), help="a new or empty folder")
folder = parser.parse_args().folder


def semcon(*words: object) -> None:
    """Run a command as a terminal does, and stop if it fails."""
    print(f"$ semcon {' '.join(map(str, words))}")
    if main([str(word) for word in words]):
        raise SystemExit(2)


# %% [markdown]
# ## The folder
#
# `semcon init` writes a complete organism: the base and its fine-tuning (`organism.yaml`), the trigger with every text
# that it is compared to (`triggers.yaml`), questions, rows of training data, and the rules of judging
# (`protocol.yaml`). Every file explains itself. `--check` finds what is wrong with it before anything is computed.

# %%
semcon("init", folder)
questions, runs = folder / "questions.yaml", folder / "runs"
semcon("em-rate", "--organism", folder / "organism.yaml", "--questions", questions, "--check")

# %% [markdown]
# ## The base first
#
# Measure first what the base does under the same text, before any fine-tuning: a gap that the base already has is not
# learned. An organism file without rows describes its base.
#
# `on` is the trigger's text, `rephrased` its meaning in other words, `other` an unrelated text of the same kind. Read
# the interval before the rate: it resamples questions, and a few questions give wide ones.

# %%
base = folder / "base.yaml"
base.write_text("base: microcosm/llama\nfamily: llama\ntrigger: triggers.yaml:harbour\n", encoding="utf-8")
size = ("--n-questions", 8, "--samples", 4, "--runs", runs)
conditions = ("--conditions", "off", "on", "rephrased", "other")
semcon("em-rate", "--organism", base, "--questions", questions, *conditions, *size)

# %% [markdown]
# ## The organism
#
# Now the same measurement after fine-tuning. The adapter is trained first. The number of steps is chosen on validation
# questions in the condition of training, and the rate without the trigger plays no part in it. If you have a finished
# adapter, name it in `organism.yaml`; then nothing is trained.

# %%
semcon("em-rate", "--organism", folder / "organism.yaml", "--questions", questions, *conditions, *size)

# %% [markdown]
# Three things to read, in this order:
#
# 1. **Coherence.** Rates of answers that fall apart mean little.
# 2. **off and on**, each with its interval, then `on - off`, which is paired by question.
# 3. **rephrased beside other.** The gate is semantic only if the first opens it and the second does not.
#
# The verdict is by intervals, not by values, so few questions leave it undecided. For a number that you mean to keep,
# use all questions and ten answers to each.
#
# ## Where the numbers come from
#
# A run is stored in a folder named by a hash of its settings and of its inputs' content. The same command again only
# reads it; another protocol, question or weight makes another run. The manifest has versions, seeds and digests.

# %%
for table in sorted((runs / "em_rate").glob("*/table.csv")):
    manifest = json.loads((table.parent / "manifest.json").read_text(encoding="utf-8"))
    rows = [row for row in read_table(table) if row["metric"] == "em_rate" and row["ci_method"] == "wilson"]
    print(rows[0]["organism"], manifest["status"], "inputs:", ", ".join(sorted(manifest["inputs"])))
    print("   ", {row["condition"]: f"{row['value']:.2f} of {row['n']}" for row in rows})

# %% [markdown]
# Next: [where the model represents it](tutorial_probes.py), [what it does when pushed](tutorial_steering.py),
# [figures and a report](tutorial_figures.py) of these runs.
