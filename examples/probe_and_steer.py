# %% [markdown]
# # From a label to an intervention, by commands
#
# Probe a label of your own, confirm the probe on text it has not seen, and steer with it beside a random direction.
# On the shipped Microcosm, about a minute; for your own model name it with `--model`, and your file with `--data`:
#
#     python examples/probe_and_steer.py --folder build/probe

# %%
import argparse
import csv
import json
from pathlib import Path

from experiments.__main__ import main as semcon

HERE = Path(__file__).parent
parser = argparse.ArgumentParser(description="Probe a label, confirm it on new text, steer with it.")
parser.add_argument("--folder", type=Path, default=Path("build/probe"))
parser.add_argument("--model", default="microcosm/llama")
arguments = parser.parse_args()
folder, model = arguments.folder, arguments.model
folder.mkdir(parents=True, exist_ok=True)


def run(*words: object) -> None:
    """Run one command as `semcon WORDS`, and stop at the first that fails."""
    print(f"\n$ semcon {' '.join(map(str, words))}")
    if semcon([str(word) for word in words]):
        raise SystemExit(2)


# %% [markdown]
# ## Labelled prompts
#
# The label says whether the system message states a harmful persona. Half of the questions stay out of the first file:
# a layer that is chosen on one file is confirmed on the other.

# %%
with (HERE / "labelled_prompts.csv").open(encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
topics = list(dict.fromkeys(row["prompt"] for row in rows))
for name, kept in (("first", topics[: len(topics) // 2]), ("second", topics[len(topics) // 2 :])):
    lines = [{**row, "harmful": row["label"] == "1"} for row in rows if row["prompt"] in kept]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

# %% [markdown]
# ## Probe
#
# Neither a question nor a phrasing of a test row is in training. The AUROC counts only above all three controls: here
# the bag of tokens is at one half, because the two kinds of message share their words.

# %%
runs = ("--runs", folder / "runs")
named = ("--label", "harmful", "--group", "prompt")
run("probe", "--model", model, "--data", folder / "first.jsonl", *named, "--phrasing", "phrasing", "--folds", 4, *runs)
(saved,) = (folder / "runs" / "probe").glob("*/probe.safetensors")
run("probe", "--apply", saved, "--data", folder / "second.jsonl", *named, *runs)

# %% [markdown]
# ## Steer
#
# Does the model act on it? The dose is in mean residual norms. Without a judge the outcome is which of two reference
# answers the model prefers. Compare at equal cost: a damaged model is indifferent, which looks like an effect.

# %%
questions = HERE / "own_organism" / "questions.yaml"
asked = ("--questions", questions, "--n-questions", 12, "--shown", 2)
run("steer", "--model", model, "--probe", saved, *asked, "--alphas", 0.3, 0.6, *runs)
