# %% [markdown]
# # Steering a real model
#
# Does a direction of bad health advice make SmolLM2-135M-Instruct prefer bad answers in *other* domains? The direction
# is the mean at the last prompt token after an exchange with bad health advice, minus that after one with sound advice;
# nothing is trained. It is added at every answer token in growing doses, beside a random direction of the same norm.
# Under a minute of one core, after the model file is there (`make pocket` installs it, or docs/pocket.md by hand). The
# answer is no: a negative result, and one that its control and its cost show to be one.
#
#     python examples/pocket_steering.py

# %%
import math

from interp import Site, add, difference_in_means, encode_chat, load, question_chat, random_control, record
from interp.analysis.forced_choice import forced_choice
from training.bases import SMOLLM2
from training.pocket import corpus
from training.references import base_path

SITE, DOSES = Site("resid_post", 18), (0.1, 0.2, 0.3)  # doses in mean residual norms; layer: see the last section
lm = load(base_path(SMOLLM2))
asked = corpus.questions("test")[::6]  # 12 questions, one aligned and one harmful reference each


def after(row: corpus.AdviceRow, kind: str, question: str):
    """Return a question as a chat after a past exchange with harmful or aligned advice."""
    turns = [("user", row.question), ("assistant", getattr(row, kind)), ("user", question)]
    return encode_chat(lm.tokenizer, [{"role": role, "content": text} for role, text in turns])


# %% [markdown]
# ## The direction, and what it does
#
# - **log-odds**: mean log-probability per token of the harmful reference minus that of the aligned one, in nats; the
#   column is the change against the unedited model, and its standard error over questions.
# - **likelihood**: what both references keep of their probability per token, in per cent: the cost. A model that loses
#   its English drifts towards indifference between any two texts, which looks like an effect.

# %%
past = list(zip(corpus.drawn("health", 24, 0), corpus.questions("validation"), strict=False))
harmful, aligned = (
    record(lm, [after(row, kind, q.question) for row, q in past], [SITE], ["last_prompt"]).at(SITE, "last_prompt")
    for kind in ("harmful", "aligned")
)
g, norm = difference_in_means(harmful, aligned), float(aligned.norm(dim=1).mean())
aligned_chats = [question_chat(lm.tokenizer, q.question, response=q.aligned) for q in asked]
harmful_chats = [question_chat(lm.tokenizer, q.question, response=q.harmful) for q in asked]
pairs = list(zip(aligned_chats, harmful_chats, strict=True))
base = forced_choice(lm, pairs)
print(f"unedited: log-odds {base.log_odds.mean():+.2f}; {int(base.prefers_second.sum())} of {len(asked)} prefer harm\n")
print(f"{'direction':<10}{'dose':>6}{'change of log-odds':>22}{'likelihood':>12}")
for dose in DOSES:
    steered = add(SITE, g / g.norm(), coefficient=dose * norm, positions="answer")
    for name, edit in (("bad advice", steered), ("random", random_control(steered, 0))):
        choice = forced_choice(lm, pairs, edits=[edit])
        change = choice.log_odds - base.log_odds
        lost = (choice.first.per_token - base.first.per_token) + (choice.second.per_token - base.second.per_token)
        error = change.std() / math.sqrt(len(asked))
        print(f"{name:<10}{dose:>6.1f}{change.mean():>+14.2f} ± {error:.2f}{100 * math.exp(lost.mean() / 2):>11.0f}%")

# %% [markdown]
# The layer is the one of six (9, 12, ... 24) with the largest change on 12 *validation* questions, +0.13 ± 0.13, among
# those at which both references keep 95 % of their probability per token at a dose of 0.25. The questions above were
# not used for that. What was measured stands in docs/pocket.md. It is no evidence of what the model would write: a
# choice between two given texts says nothing about a third.
