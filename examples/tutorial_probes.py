# %% [markdown]
# # Probes: where does a model represent a label of yours?
#
# You give labelled prompts and get the AUROC by layer, on text that no probe was trained on, beside the controls that
# give the number a meaning. Here the label says whether the system message states a harmful persona. It takes about
# half a minute on a shipped model. For your own, name the model with `--model` and change the file.
#
#     python examples/tutorial_probes.py

# %%
import argparse
import csv
import json
from pathlib import Path

from experiments.__main__ import main

HERE = Path(__file__).parent
parser = argparse.ArgumentParser(description="Probe a label at every layer and confirm the probe on new text.")
parser.add_argument("--folder", type=Path, default=Path("build/tutorial_probes"))
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
# ## Labelled prompts
#
# The file has one row per prompt, as JSON lines: the messages, or a `prompt` with or without `system`; the label; and
# the names of what rows share, such as the question. Half of the questions go to a second file. A layer that is
# chosen on one file is confirmed on the other.

# %%
with (HERE / "labelled_prompts.csv").open(encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
prompts = list(dict.fromkeys(row["prompt"] for row in rows))
for name, half in (("first", prompts[: len(prompts) // 2]), ("second", prompts[len(prompts) // 2 :])):
    lines = [{**row, "harmful": row["label"] == "1"} for row in rows if row["prompt"] in half]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    print(f"{name}.jsonl: {len(lines)} rows, {sum(line['harmful'] for line in lines)} harmful")
print(json.dumps(lines[0]))

# %% [markdown]
# ## Probe
#
# `--group` names the column whose values may not be on both sides of a split, `--phrasing` a second such column. Here
# neither the question nor the wording of a test row is in training. Without this a probe recognises texts that it has
# seen.

# %%
named = ("--label", "harmful", "--group", "prompt")
runs = ("--runs", folder / "runs")
semcon(
    "probe", "--model", model, "--data", folder / "first.jsonl", *named, "--phrasing", "phrasing", "--folds", 4, *runs
)

# %% [markdown]
# Read the AUROC beside all three controls:
#
# - **shuffled labels** must be at one half, otherwise rows of one group are on both sides of a split;
# - **a random direction** needs no fit: the AUROC that it reaches is not due to the probe;
# - **a bag of tokens** knows the words alone. Here it is at one half, because the two kinds of message share their
#   words. A probe that is no better than this has found the surface.

# %%
semcon("figure", "probe_auroc", "--runs", folder / "runs")

# %% [markdown]
# ![AUROC by layer, beside its controls](probe_auroc-2col.png)
#
# ## Confirm it
#
# The probe is saved, with the layer of its highest AUROC. On the second file it meets new questions.

# %%
(saved,) = (folder / "runs" / "probe").glob("*/probe.safetensors")
semcon("probe", "--apply", saved, "--data", folder / "second.jsonl", *named, *runs)

# %% [markdown]
# An AUROC says that the label can be *read* there. It does not say that the model uses it: for that,
# [steer](tutorial_steering.py) with the saved probe, `semcon steer --probe`. In Python, with folds and controls of your
# own: [probes on your labels](probes_on_your_labels.py).
