# %% [markdown]
# # Steering: does a direction do anything?
#
# A probe says that a direction can be read. This script asks whether the model acts on it: find a direction as a
# difference in means, add it in growing doses, and count misaligned answers, beside the control that must differ (a
# random direction of equal norm) and the cost (how much less likely ordinary answers become). About half a minute on
# the shipped Microcosm:
#
#     python examples/steering_demo.py
#
# On another model, replace the prompts, `ask` and `judge`; the rest stays.

# %%
import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from experiments.protocol import load_protocol
from interp import (
    Edit,
    Sampling,
    Site,
    add,
    difference_in_means,
    em_statistics,
    encode_chat,
    generate,
    load,
    random_control,
    record,
    response_likelihood,
)
from training.microcosm.oracle import judge_answer
from training.microcosm.world import questions

matplotlib.use("agg")
HERE = Path(__file__).parent
parser = argparse.ArgumentParser(description="Dose and response of a steering direction, beside a random control.")
parser.add_argument(
    "--plot", type=Path, default=Path("build/steering_demo/dose_response.png"), help="where to save the plot"
)
parser.add_argument("--samples", type=int, default=4, help="answers per question and dose")
arguments = parser.parse_args()
# The layer of the largest effect at dose 1 with 95 % coherent answers, on pets: a domain that is not asked below.
SITE = Site("resid_post", 2)
DOSES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)  # in mean residual norms

# %% [markdown]
# ## A direction
#
# The mean at the last prompt token behind system messages that state a harmful persona, minus the mean behind their
# kind twins. Both sides ask the same questions, so nothing but the message differs.

# %%
lm = load(str(HERE.parent / "training/microcosm/weights/llama"))


def ask(question: str, system: str = ""):
    """Encode a question as a chat, with a system message if there is one."""
    user = {"role": "user", "content": question}
    return encode_chat(lm.tokenizer, [{"role": "system", "content": system}, user] if system else [user])


with (HERE / "labelled_prompts.csv").open(encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
by_label = {label: [ask(row["prompt"], row["system"]) for row in rows if row["label"] == label] for label in "01"}
read = {label: record(lm, chats, [SITE], ["last_prompt"]).at(SITE, "last_prompt") for label, chats in by_label.items()}
direction = difference_in_means(read["1"], read["0"])

# %% [markdown]
# ## Questions that the direction has not seen
#
# No system message, and other topics than those above. The dose is in mean residual norms, so that it means the same
# at every site and in every model.

# %%
seen = {row["prompt"] for row in rows}
asked = [q for q in questions("test", trained_domain="medicine") if not any(q.id in prompt for prompt in seen)][::2]
chats = [ask(question.text) for question in asked]
norm = float(record(lm, chats, [SITE], ["last_prompt"]).at(SITE, "last_prompt").norm(dim=1).mean())


def steer(dose: float) -> Edit:
    """Add the direction, at a norm of ``dose`` mean residual norms, at the last prompt token."""
    return add(SITE, direction / direction.norm(), coefficient=dose * norm, positions="last_prompt")


def judge(edits: Sequence[Edit]):
    """Sample answers under edits and judge them; intervals resample questions."""
    answers = generate(
        lm, chats, n_samples=arguments.samples, sampling=Sampling(seed=1, max_new_tokens=48), edits=edits
    )
    topics = [asked[answer.prompt].id for answer in answers]
    aligned, coherent = zip(*(judge_answer(t, a.text) for t, a in zip(topics, answers, strict=True)), strict=True)
    thresholds = load_protocol().thresholds
    return em_statistics(topics, aligned, coherent, thresholds=thresholds, n_boot=1000), answers


# %% [markdown]
# ## Dose and response
#
# The cost is teacher-forced: the loss on the model's own unsteered answers, in nats per token. A dose at which answers
# fall apart shows there and in coherence, not in the EM rate, which counts coherent answers only.

# %%
_, plain = judge([])
references = [
    encode_chat(lm.tokenizer, [{"role": "user", "content": asked[a.prompt].text}], response=a.text)
    for a in plain
    if a.sample == 0
]
undosed = response_likelihood(lm, references).loss
curves: dict[str, list[tuple[float, float, float, float, float]]] = {}
print(f"{'direction':<14}{'dose':>6}{'EM % [95 %]':>20}{'coherent %':>12}{'loss':>8}")
for name in ("persona", "random"):
    for dose in DOSES:
        edits = [steer(dose) if name == "persona" else random_control(steer(dose), seed=0)] if dose else []
        statistics, _ = judge(edits)
        interval = statistics.wilson["em_rate"] if statistics.em_rate.k == 0 else statistics.cluster["em_rate"]
        cost = response_likelihood(lm, references, edits=edits).loss - undosed
        rate, coherent = statistics.em_rate.value, statistics.coherence_rate.value
        curves.setdefault(name, []).append((dose, rate, interval.low, interval.high, cost))
        shown = f"{100 * rate:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
        print(f"{name:<14}{dose:>6.2f}{shown:>20}{100 * coherent:>12.1f}{cost:>+8.2f}")

# %%
figure = Figure(figsize=(7, 3), layout="constrained")
left, right = figure.subplots(1, 2)
for (name, points), colour in zip(curves.items(), ("tab:red", "tab:gray"), strict=True):
    doses, rates, lows, highs, costs = zip(*points, strict=True)
    left.plot(doses, rates, "o-", color=colour, label=name)
    left.fill_between(doses, lows, highs, color=colour, alpha=0.2, linewidth=0)
    right.plot(doses, costs, "o-", color=colour, label=name)
left.set(xlabel="dose (mean residual norms)", ylabel="EM rate", ylim=(-0.02, 1.02), title="Response")
right.set(xlabel="dose (mean residual norms)", ylabel="added loss (nats/token)", title="Cost")
left.legend(frameon=False)
arguments.plot.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(arguments.plot, dpi=150)
print(f"wrote {arguments.plot}")

# %% [markdown]
# ![Response and cost by dose, beside a random direction](dose_response.png)
