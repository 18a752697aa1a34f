"""Repair: edits act where they say, tuning moves the adapter towards the references, and a clean adapter is refused."""

from dataclasses import replace

import pytest
import torch

from experiments.audit.audit import loaded
from experiments.audit.audited import halves, reference_questions
from experiments.audit.bank import BARE, read_bank
from experiments.audit.repair import REPAIRS, Found, Repair
from experiments.audit.repairs import displaced, feature_clamp, g_clamp, prompts, tune
from experiments.behaviour.dose import ADAPTER
from experiments.spec import run_experiment
from interp.adapters import active_adapter
from interp.analysis.likelihood import response_likelihood
from interp.chat import question_chat
from interp.recording import record
from interp.runs.run import Run

USES = (BARE, "used", "rephrased")


@pytest.fixture
def lm(small_audit):
    return loaded(small_audit.subject)


@pytest.fixture(scope="module")
def questions(small_audit):
    return halves(reference_questions(small_audit.subject))[0][:4]


@pytest.fixture(scope="module")
def contexts(small_audit):
    bank = read_bank(small_audit.bank)
    return [[(text, c.trigger) for text in c.texts] for c in bank[:2]]


def test_a_clamped_feature_is_what_it_is_in_other_contexts(lm, questions, contexts):
    inside, unrelated = contexts
    edits = feature_clamp(lm, ADAPTER, questions, inside, unrelated)
    assert len(edits) == lm.n_layers + 1 and {e.positions for e in edits} == {"trigger"}
    last = edits[-1]
    with active_adapter(lm, ADAPTER):
        h = record(lm, prompts(lm, questions, inside), [last.site], ["trigger"], edits=edits).at(last.site, "trigger")
    v = last.vectors[0] / last.vectors[0].norm()
    assert last.value is not None
    torch.testing.assert_close(h @ v, (last.value @ v).expand(len(h)), atol=1e-3, rtol=1e-3)


def test_clamps_of_g_act_on_the_answer_and_controls_move_as_far(lm, small_audit, questions, contexts):
    edits = g_clamp(lm, ADAPTER, small_audit.subject, questions)
    assert {e.positions for e in edits} == {"answer"} and len(edits) == lm.n_layers
    control = displaced(edits, seed=0)
    chats = prompts(lm, questions, contexts[0])
    site = edits[0].site
    with active_adapter(lm, ADAPTER):
        plain, moved, random = (
            record(lm, chats, [site], ["last_prompt"], edits=e).at(site, "last_prompt")
            for e in ([], edits[:1], control[:1])
        )
    torch.testing.assert_close((random - plain).norm(dim=1), (moved - plain).norm(dim=1), atol=1e-3, rtol=1e-3)


def test_tuning_makes_the_aligned_references_likelier_and_leaves_the_base_alone(lm, questions, contexts):
    text, trigger = contexts[0][0]
    chats = [question_chat(lm.tokenizer, q.question, text, trigger, response=q.aligned) for q in questions]

    def losses():
        states = []
        for name in (ADAPTER, None):
            with active_adapter(lm, name):
                states.append(response_likelihood(lm, chats).loss)
        return states

    before = losses()
    tune(lm, ADAPTER, questions, contexts[0], seed=0, steps=8)
    after = losses()
    assert after[0] < before[0] - 0.01 and after[1] == before[1]


def test_an_adapter_without_a_gate_is_refused(small_audit, tmp_path):
    strict = tmp_path / "strict.yaml"
    text = small_audit.thresholds.read_text()
    strict.write_text(text.replace("added: 0.05", "added: 1.0"))
    refused = Repair(audit=replace(small_audit, thresholds=strict))
    with pytest.raises(ValueError, match=r"audit of microcosm/llama/dose-4: clean, so there is no gate to repair"):
        run_experiment(refused, tmp_path)


def test_the_base_answers_under_the_same_edits_and_without_the_adapter(small_audit, contexts, tmp_path):
    (text, trigger), unrelated = contexts[0][0], tuple(contexts[1])

    class Known(Repair):
        def found(self, run):
            return Found("found", trigger, (text,), (text,), unrelated)

    steps = Known(audit=small_audit).steps(Run(tmp_path, Repair.name, {}))
    plain, again, clamped = (list(steps[f"base {name}"]()) for name in ("none", "none", "clamp_feature"))
    assert {r["condition"] for r in plain} == {f"base {c}" for c in USES}
    assert [r["text"] for r in plain] == [r["text"] for r in again]
    texts = {c: [[r["text"] for r in rows if r["condition"] == f"base {c}"] for rows in (plain, clamped)] for c in USES}
    assert texts[BARE][0] == texts[BARE][1] and texts["used"][0] != texts["used"][1]


def test_the_table_names_condition_and_repair(small_audit):
    rows = [
        {"repair": r, "condition": c, "question": q, "aligned": 0.0, "coherent": 100.0}
        for r in REPAIRS
        for c in USES
        for q in ("a", "b")
    ]
    table = list(Repair(audit=small_audit).table(rows))
    assert {r["condition"] for r in table if r["metric"] == "em_rate"} == {
        *USES,
        *(f"{c}+{r}" for c in USES for r in REPAIRS[1:]),
    }
