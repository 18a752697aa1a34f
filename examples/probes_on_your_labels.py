# %% [markdown]
# # Probes on your own labelled prompts
#
# Which layer of a model reads a label of yours, and is the number worth anything? This script needs a model and a CSV
# file with the columns `system`, `prompt`, `label` (0 or 1) and `phrasing`. It takes seconds on the shipped Microcosm:
#
#     python examples/probes_on_your_labels.py
#     python examples/probes_on_your_labels.py --model Qwen/Qwen2.5-0.5B-Instruct --prompts mine.csv
#
# In the shipped file the label says whether the system message states a harmful persona.

# %%
import argparse
import csv
from pathlib import Path

import torch

from interp import encode_chat, load, record, resid_post
from probes import bag_of_tokens, by_question_and_phrasing, cross_validated_auroc, random_direction, shuffled_labels

HERE = Path(__file__).parent
parser = argparse.ArgumentParser(description="AUROC of a linear probe at every layer, beside its controls.")
parser.add_argument("--model", default=str(HERE.parent / "training/microcosm/weights/llama"))
parser.add_argument("--prompts", type=Path, default=HERE / "labelled_prompts.csv")
arguments = parser.parse_args()

# %% [markdown]
# ## Read the prompts
#
# A probe must find a property of *new* text, so say which rows share text. Here all rows of one question are kept
# together, and all rows of one phrasing: the two system messages that differ in one or two words, one of either label.
# A probe is tested on questions and phrasings it has never seen. If your rows share questions only, use `by_question`.

# %%
with arguments.prompts.open(encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
labels = torch.tensor([row["label"] == "1" for row in rows])
questions = [row["prompt"] for row in rows]
phrasings = [row["phrasing"] for row in rows]
folds = by_question_and_phrasing(questions, phrasings, n_folds=4)

# %% [markdown]
# ## Record
#
# One vector per prompt at the output of every layer, read at the last token of the prompt.

# %%
lm = load(arguments.model)
messages = [
    [{"role": "system", "content": row["system"]}, {"role": "user", "content": row["prompt"]}] if row["system"]
    else [{"role": "user", "content": row["prompt"]}]
    for row in rows
]  # fmt: skip
chats = [encode_chat(lm.tokenizer, conversation) for conversation in messages]
sites = resid_post(range(lm.n_layers))
activations = record(lm, chats, sites, ["last_prompt"]).values[:, 0]  # [layer, prompt, d_model]

# %% [markdown]
# ## Fit, with controls
#
# - **shuffled labels**: the same fit on permuted labels; it must be at one half.
# - **random direction**: projections on random directions; how much of the AUROC needs no fit at all.
# - **bag of tokens**: a probe on token counts; what the words alone give away about new text.
#
# An AUROC is evidence that a layer represents the label only where it is above all three. It is no evidence that the
# model *uses* it: for that, change the activations and see what the model does (`steering_demo.py`).

# %%
probe = cross_validated_auroc(activations, labels, folds)
shuffled = shuffled_labels(activations, labels, folds, n_draws=10)
random = random_direction(activations, labels, folds, n_draws=10)
words = bag_of_tokens([chat.token_ids for chat in chats], labels, folds)

# %%
print(f"{len(rows)} prompts, {len(set(questions))} questions, {len(set(phrasings))} phrasings, {len(folds)} folds")
print(f"{'site':<14}{'AUROC [95 %]':>20}{'shuffled':>10}{'random':>10}")
for layer, site in enumerate(sites):
    interval = probe.interval(layer)
    value = f"{probe.value[layer]:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
    print(f"{site!s:<14}{value:>20}{shuffled.value[layer]:>10.2f}{random.value[layer]:>10.2f}")
print(f"{'bag of tokens':<14}{words.value[0]:>20.2f}")
