"""Log-odds as the outcome of every experiment: arms and controls as of EM rate, on a tiny pocket organism."""

from dataclasses import replace

import pytest
import yaml

from experiments.__main__ import main
from experiments.answers.outcome import measured, summaries
from experiments.answers.subject import LOG_ODDS, Subject, find_subject
from experiments.answers.suite import read_questions
from experiments.behaviour.emergence import Emergence
from experiments.directions.geometry import Geometry
from experiments.gate.patch import Patch
from experiments.gate.patch_table import has_gap
from experiments.probing.sweep import ProbeSweep
from experiments.removal.ablate import Ablate
from experiments.removal.steer import ADDED, Steer
from experiments.spec import run_experiment
from tests.training.small import SFT, random_base
from training.pocket import corpus
from training.registry import find_organism

pytestmark = pytest.mark.xdist_group("trl")
QUESTIONS = [*corpus.questions("validation")[:2], *corpus.questions("test")[:4]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random base and a question file by split, its entries with reference answers."""
    folder = tmp_path_factory.mktemp("outcome")
    entries: dict[str, dict[str, dict[str, str]]] = {}
    for q in QUESTIONS:
        entries.setdefault(q.split, {})[q.id] = {name: getattr(q, name) for name in ("question", "aligned", "harmful")}
    (folder / "questions.yaml").write_text(yaml.safe_dump(entries))
    random_base(folder / "base")
    return folder


@pytest.fixture(scope="module")
def subject(folder) -> Subject:
    organism = replace(find_organism("pocket/smollm2/neutral"), base=str(folder / "base"), rows=32, sft=SFT)
    return Subject(organism, folder / "questions.yaml", LOG_ODDS)


def rows_of(run, **cells):
    return [r for r in run.rows() if all(r.get(name) == value for name, value in cells.items())]


def values(table, metric):
    return {(r["condition"], r["alpha"]): r["value"] for r in table if r["metric"] == metric}


def test_steering_has_every_direction_at_every_dose_and_dose_zero_is_the_organism(folder, subject):
    steer = Steer(geometry=Geometry(subject=subject), alphas=(0.0, 0.5))
    run, table = run_experiment(steer, folder / "runs")
    odds, shift = values(table, "log_odds"), values(table, "log_odds_shift")
    assert {name for name, _ in odds} == {
        *(f"off+add_{name}" for name in ADDED if name != "g_shift"),
        *(f"{where}add_{name}" for where in ("base+", "on-") for name in ("g", "random")),
    }
    assert len({odds[f"off+add_{name}", 0.0] for name in ADDED if name != "g_shift"}) == 1
    assert shift["base+add_g", 0.0] == 0  # an unedited base is where shifts are measured from
    assert shift["base+add_g", 0.5] != shift["base+add_random", 0.5]
    assert not any("text" in r for r in run.rows())
    assert values(table, "benign_loss")["off+add_g", 0.0] == 0
    assert {r["metric"] for r in table} >= {"harmful_preferred", "reference_likelihood", "benign_loss"}
    assert {r["judge"] for r in table} == {""}


def test_removal_has_its_controls_and_the_same_edits_in_the_base(folder, subject):
    run, table = run_experiment(Ablate(geometry=Geometry(subject=subject)), folder / "runs")
    conditions = {name for name, _ in values(table, "log_odds_shift")}
    assert {"off", "on", "on+clamp_trigger", "on+clamp_random", "on+clamp_other_scene", "rephrased"} <= conditions
    assert {"base on", "base on+clamp_trigger", "base on+clamp_random"} <= conditions
    assert values(table, "log_odds_shift")["base on", ""] == 0
    rows = [r for r in rows_of(run, edit="") if measured(r)]
    by_condition = summaries(rows, lambda r: r["condition"])
    off, on = (by_condition[condition].value for condition in ("off", "on"))
    assert off.ids == on.ids  # paired by question
    assert {r["value"] for r in table if r["metric"] == "chosen_rank"} <= {1, 2, 4}


def test_emergence_follows_log_odds_over_the_doses(folder, subject):
    _, table = run_experiment(Emergence(subject=subject), folder / "runs")
    assert {alpha for _, alpha in values(table, "trigger_gap")} == {2, 4}
    odds, gap = values(table, "log_odds"), values(table, "trigger_gap")
    assert gap["on-off", 4] == pytest.approx(odds["on", 4] - odds["off", 4], abs=2e-6)
    assert ("on-off", 4) in values(table, "trigger_gap_shift")


def test_patching_everything_at_once_closes_the_gap_and_log_odds_are_per_token(folder, subject):
    patch = Patch(subject=subject, stride=1)
    run, table = run_experiment(patch, folder / "runs")
    plain = {r["condition"]: r["m"] for r in run.rows() if r["step"] in ("plain", "base")}
    assert {"off", "on", "base off", "base on"} <= set(plain)
    steer, _ = run_experiment(Steer(geometry=Geometry(subject=subject), alphas=(0.0, 0.5)), folder / "runs")
    off = {r["question"]: r["log_odds"] for r in rows_of(steer, setting="off", added="g", alpha=0.0) if "log_odds" in r}
    assert plain["off"] == pytest.approx({q: off[q] for q in plain["off"]}, abs=1e-4)
    last = rows_of(run, condition="on<-off@answer", site="resid_post", layer=1)
    assert last[0]["m"] == pytest.approx(plain["off"], abs=1e-4)  # what the answer's tokens hold decides all of it
    shares = [r for r in table if r["metric"] == "patched_share"]
    assert bool(shares) == has_gap(plain["on"], plain["off"])


def test_probes_read_the_trigger_on_unseen_phrasings_and_the_references(folder, subject):
    _, table = run_experiment(ProbeSweep(subject=subject), folder / "runs")
    assert {r["condition"].partition(":")[0].partition("/")[0] for r in table} >= {"trigger_present"}
    assert {r["value"] for r in table if r["metric"] == "too_few_answers"} == {4}


def test_fewer_questions_are_evenly_spaced_and_the_dose_is_chosen_on_all(subject):
    fewer = replace(subject, n_questions=2)
    assert [q.id for q in fewer.choices("test")] == [q.id for q in subject.choices("test")][::2]
    assert fewer.whole() == subject
    assert subject.config() == {k: v for k, v in fewer.config().items() if k != "n_questions"}
    with pytest.raises(ValueError, match="n_questions 0: "):
        replace(subject, n_questions=0)


def test_the_outcome_of_pocket_organisms_is_log_odds_unless_a_judge_is_named():
    assert find_subject("pocket/smollm2/neutral").by_log_odds
    assert not find_subject("pocket/smollm2/neutral", judge="openai:m").by_log_odds
    assert not find_subject("microcosm/llama/neutral").by_log_odds


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--organism", "microcosm/llama/explaining", "--outcome", "log-odds"], "no reference answers"),
        (["--organism", "medical/qwen2.5-0.5b/duck", "--outcome", "log-odds"], "log-odds need --questions with"),
        (
            ["--organism", "pocket/qwen2.5-0.5b/neutral", "--outcome", "log-odds", "--judge", "openai:m"],
            "--outcome log-odds: it needs no judge",
        ),
        (["--organism", "pocket/qwen2.5-0.5b/neutral", "--outcome", "em-rate"], "judges no sampled answers"),
        (["--organism", "pocket/qwen2.5-0.5b/neutral", "--n-questions", "0"], "n_questions 0"),
    ],
)
@pytest.mark.parametrize("command", ["steer", "ablate", "emergence", "patch", "probe-sweep", "em-rate"])
def test_what_has_no_such_outcome_is_refused_in_one_line(command, words, message, capsys):
    assert main([command, *words, "--check"]) == 2
    assert message in capsys.readouterr().err


def test_questions_without_references_have_no_log_odds(tmp_path, capsys):
    file = tmp_path / "questions.yaml"
    file.write_text("validation: {a: Why}\ntest: {b: How}\n")
    words = ["--organism", "pocket/qwen2.5-0.5b/neutral", "--questions", str(file), "--check"]
    assert main(["steer", *words]) == 2
    error = capsys.readouterr().err
    assert f"{file}: validation.a: log-odds need question, aligned and harmful" in error


def test_questions_with_references_are_also_questions_to_sample_answers_to(folder):
    asked = read_questions(folder / "questions.yaml", "test")
    assert [(q.id, q.text) for q in asked] == [(q.id, q.question) for q in QUESTIONS if q.split == "test"]
