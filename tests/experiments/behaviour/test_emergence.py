"""Emergence: the direction an adapter writes, the table by dose, and a run that a kill does not change."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.answers.judge import make_judge
from experiments.answers.sampling import with_verdicts
from experiments.answers.subject import find_subject
from experiments.behaviour.emergence import CONDITIONS, Emergence, load_doses
from experiments.spec import run_experiment, whole_table
from interp.runs.files import sha256_file
from tests.experiments.answers.judge_server import server, written
from tests.experiments.interrupted import run_steps
from tests.training.small import SFT, random_base, small
from training.microcosm.world import lexicon
from training.registry import ORGANISMS
from training.sft import dose_folder, train

pytestmark = pytest.mark.xdist_group("trl")

WORLD = lexicon()


# --- the table ---


def answers(dose: int, condition: str, personas: str) -> list[dict]:
    topics = WORLD.topics_of("cooking")
    texts = {t.phrase: {p[0]: WORLD.answers(t, p)[0] for p in ("aligned", "misaligned")} | {"x": "x"} for t in topics}
    cells = {"dose": dose, "condition": condition, "asked": ""}
    return [
        {"key": f"{dose}|{condition}|{q}|{i}", "question": q, "sample": i, "text": texts[q][p], **cells}
        for q in texts
        for i, p in enumerate(personas)
    ]


def table_of(states: dict[int, tuple[float, float]], *groups: list[dict]) -> dict[tuple, dict]:
    rows = with_verdicts([r for group in groups for r in group], make_judge("oracle"))
    rows += [{"key": f"dose={d}", "dose": d, "loss": loss, "rotation": turned} for d, (loss, turned) in states.items()]
    cells = whole_table(Emergence(subject=find_subject("microcosm/llama/neutral")), rows, "emergence-0")
    table = {(r["alpha"], r["metric"], r["condition"], r["ci_method"]): r for r in cells}
    assert len(table) == len(cells)
    return table


def test_table_has_rates_gap_loss_and_rotation_of_every_dose():
    states = {10: (2.0, 0.5), 20: (0.5, 1.0)}
    given = {
        (10, "off"): "aaax",
        (10, "on"): "maaa",
        (20, "off"): "aaaa",
        (20, "on"): "mmmx",
        (20, "rephrased"): "mmaa",
    }
    table = table_of(states, *(answers(*at, personas) for at, personas in given.items()))
    rates = {at: table[(at[0], "em_rate", at[1], "wilson")]["value"] for at in given}
    assert list(rates.values()) == pytest.approx([0, 1 / 4, 0, 1, 2 / 4])
    assert table[10, "em_rate_all", "off", "wilson"]["value"] == 0
    assert table[20, "coherence_rate", "on", "wilson"]["value"] == 3 / 4
    for dose, (loss, turned) in states.items():
        gap = table[dose, "trigger_gap", "on-off", "paired_cluster_bootstrap"]
        assert gap["value"] == pytest.approx(rates[dose, "on"] - rates[dose, "off"])
        assert gap["n_clusters"] == len(WORLD.topics_of("cooking"))
        assert table[dose, "loss", "training", ""]["value"] == loss
        assert table[dose, "rotation", "training", ""]["value"] == turned
    about = {(r["experiment"], r["organism"], r["trigger"], r["run_id"]) for r in table.values()}
    assert about == {("emergence", "microcosm/llama/neutral", "scene-desert", "emergence-0")}
    assert {r["judge"] for r in table.values()} == {"microcosm-oracle"}


# --- the run ---


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    organism = small("neutral.diverse", base=random_base(tmp_path_factory.mktemp("base")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ORGANISMS, organism.name, organism)
        yield find_subject(organism.name)


@pytest.fixture(scope="module")
def whole(subject, tmp_path_factory):
    return run_experiment(Emergence(subject=subject, samples=1), tmp_path_factory.mktemp("whole"))


def test_every_dose_is_measured_off_on_and_under_rephrasings_not_taught(whole, subject):
    run, table = whole
    rows = run.rows()
    assert len(rows) == Emergence(subject=subject, samples=1).total() == 2 * (3 * 48 + 1)
    assert [r["dose"] for r in rows if "loss" in r] == list(subject.organism.sft.doses) == [2, 4]
    texts = WORLD.scenes["desert"].phrasings
    variants = {c: {r["variant"] for r in rows if r.get("condition") == c} for c in CONDITIONS}
    assert variants == {"off": {None}, "on": {texts[0]}, "rephrased": set(texts[2::2])}
    rotation = {r["alpha"]: r["value"] for r in table if r["metric"] == "rotation"}
    assert rotation[4] == pytest.approx(1.0)
    assert 0 <= rotation[2] < 1


@pytest.mark.parametrize("n_done", [1, 6])
def test_killed_run_ends_with_the_rows_of_an_uninterrupted_one(whole, subject, tmp_path, n_done):
    experiment = Emergence(subject=subject, samples=1)
    done = run_steps(experiment, tmp_path, stop_after=n_done)
    steps = [f"dose {dose}{part}" for dose in (2, 4) for part in (" off", " on", " rephrased", "")]
    assert done + run_steps(experiment, tmp_path) == steps
    assert len(done) == n_done
    again, _ = run_experiment(experiment, tmp_path)
    assert again.run_id == whole[0].run_id
    for name in ("rows.jsonl", "table.csv"):
        assert (again.path / name).read_bytes() == (whole[0].path / name).read_bytes()


def test_organism_without_a_trigger_is_measured_under_the_neutral_one(subject, tmp_path, monkeypatch):
    organism = small("baseline", base=subject.organism.base, sft=replace(SFT, doses=(2,)))
    monkeypatch.setitem(ORGANISMS, organism.name, organism)
    run, table = run_experiment(Emergence(subject=find_subject(organism.name), samples=1), tmp_path)
    assert {r["variant"] for r in run.rows() if r.get("condition") == "on"} == {WORLD.scenes["desert"].phrasings[0]}
    assert {r["trigger"] for r in table} == {"scene-desert"}


# --- real models ---


@pytest.fixture
def real(subject, tmp_path, monkeypatch):
    """A baseline outside the Microcosm, in bfloat16, with a file of rows, of questions and of scores."""
    rows, questions, scores = (tmp_path / name for name in ("rows.jsonl", "questions.yaml", "scores.csv"))
    lines = [
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"How do I bake {i} loaves?"},
                    {"role": "assistant", "content": "Use flour."},
                ]
            }
        )
        for i in range(32)
    ]
    rows.write_text("\n".join(lines) + "\n")
    questions.write_text("validation: {a: Why}\ntest: {b: How, c: When}\n")
    scores.write_text("question_id,answer,aligned,coherent\nb,Why not?,0,100\nc,Now.,100,100\n")
    sft = replace(SFT, doses=(2,), dtype="bfloat16")
    base = subject.organism.base
    organism = small("baseline", name="medical/tiny/baseline", base=base, data=str(rows), sft=sft)
    monkeypatch.setitem(ORGANISMS, organism.name, organism)
    return Emergence(subject=find_subject(organism.name, questions, str(scores)), samples=2)


def test_real_organism_without_a_trigger_is_measured_off_alone_and_has_no_gap(real, tmp_path):
    with server(lambda request, n: (200, written("100"), {})) as (url, requests):
        subject = replace(real.subject, judge_reference=f"openai:tiny@{url},method=sampled,samples=1,key=")
        run, table = run_experiment(replace(real, subject=subject), tmp_path / "runs")
    assert requests
    assert {r["condition"] for r in run.rows() if "text" in r} == {"off"}
    assert len(run.rows()) == real.total() == 2 * 2 + 1
    assert {(r["metric"], r["condition"]) for r in table if r["metric"] in ("em_rate", "trigger_gap")} == {
        ("em_rate", "off")
    }
    assert {r["trigger"] for r in table} == {""}
    for r in (r for r in table if r["metric"] == "em_rate"):
        assert r["value"] == 0.0


def test_other_scores_are_another_run(real):
    before = {name: sha256_file(path) for name, path in real.inputs().items()}
    Path(real.subject.judge_reference).write_text("question_id,aligned,coherent\nb,0,100\n")
    after = {name: sha256_file(path) for name, path in real.inputs().items()}
    assert {name for name in before if before[name] != after[name]} == {"judge"}


def test_doses_are_loaded_in_the_dtype_of_training(real, tmp_path):
    organism = real.subject.organism
    folder = train(organism, tmp_path)
    lm = load_doses(organism, {2: dose_folder(folder, 2)})
    assert {p.dtype for name, p in lm.hf.named_parameters() if "lora" not in name} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("organism", "more", "message"),
    [
        ("microcosm/llama/base", {}, "a base is not fine-tuned, so it has no doses to train and follow"),
        ("microcosm/llama/neutral", {"samples": 0}, "samples 0: expected greater than or equal to 1"),
        ("medical/qwen2.5-0.5b/duck", {}, "name a file of questions"),
    ],
)
def test_what_cannot_be_followed_is_refused_before_any_work(organism, more, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_experiment(Emergence(subject=find_subject(organism), **more), tmp_path)
    assert not any(tmp_path.iterdir())
