# %% [markdown]
# # Steering: does a model act on a direction?
#
# Two files of prompts that differ in one thing give a direction. It is added in growing doses, beside a random
# direction of the same norm. What counts is the outcome, its cost, and the answers. This tutorial takes about a
# minute on a shipped model, with the exact judge of its synthetic world. For your own, name a model, two files,
# questions and a judge.
#
#     python examples/tutorial_steering.py

# %%
import argparse
import csv
import json
from pathlib import Path

from experiments.__main__ import main

HERE = Path(__file__).parent
parser = argparse.ArgumentParser(description="Steer with a direction from two sets of prompts, beside a control.")
parser.add_argument("--folder", type=Path, default=Path("build/tutorial_steering"))
parser.add_argument("--model", default="microcosm/llama")
arguments = parser.parse_args()
folder, model = arguments.folder, arguments.model
folder.mkdir(parents=True, exist_ok=True)


def semcon(*words: object) -> None:
    """Run a command as a terminal does, and stop if it fails."""
    print(f"$ semcon {' '.join(map(str, words))}")
    if main([str(word) for word in words]):
        raise SystemExit(2)


# %% [markdown]
# ## Two sets of prompts
#
# Write them in pairs. A direction carries everything in which the sets differ, length and topic too. Here each pair
# asks one question behind a harmful and behind a kind system message of the same form.

# %%
with (HERE / "labelled_prompts.csv").open(encoding="utf-8", newline="") as file:
    rows = [row for row in csv.DictReader(file) if row["system"]]
for name, label in (("harmful", "1"), ("kind", "0")):
    chats = [
        [{"role": "system", "content": row["system"]}, {"role": "user", "content": row["prompt"]}]
        for row in rows
        if row["label"] == label
    ]
    lines = [json.dumps({"messages": chat}) + "\n" for chat in chats]
    (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    print(len(lines), lines[0].strip())

# %% [markdown]
# ## Dose and response
#
# The direction is the difference of the two means at the last prompt token of one layer. Here it is added at that
# token only, without any system message; by default it is added at every answer token too. The dose is in mean
# residual norms. With a judge the outcome is the EM rate; without a judge it is which of two reference answers the
# model prefers.

# %%
sets = ("--positive", folder / "harmful.jsonl", "--negative", folder / "kind.jsonl", "--layer", 2)
place = ("--positions", "last_prompt", "--alphas", 0, 0.5, 1, 1.5)
asked = ("--questions", HERE / "own_organism" / "questions.yaml", "--n-questions", 12)
measured = ("--judge", "oracle", "--samples", 4, "--shown", 3)
semcon("steer", "--model", model, *sets, *place, *asked, *measured, "--runs", folder / "runs")

# %%
semcon("figure", "dose_response", "--runs", folder / "runs")

# %% [markdown]
# ![EM rate and coherence by dose](dose_response-2col.png)
#
# Two comparisons decide it:
#
# - **beside the random direction** at the same dose. An effect is what the direction does beyond it.
# - **at equal cost.** `benign loss` says how much less likely ordinary answers became. A model that has lost its
#   language is indifferent between any two texts, which looks like an effect. Hollow points: most answers fell apart.
#
# ## The answers themselves
#
# Numbers hide what an edit does to the text. `answers.md` in the run's folder has greedy answers side by side.

# %%
(answers,) = (folder / "runs" / "steer_vector").glob("*/answers.md")
print("\n".join(answers.read_text(encoding="utf-8").splitlines()[:24]))

# %% [markdown]
# The same command steers with a [saved probe](tutorial_probes.py) (`--probe`) or a vector of a file (`--direction`),
# with an adapter (`--adapter`) or without. By hand, in a browser: `semcon demo`. In Python, with edits of your own:
# [a steering demo](steering_demo.py).
