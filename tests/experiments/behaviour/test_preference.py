"""The dose rule without a judge, and preferences of a tiny organism from training to table."""

import shutil
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from experiments.__main__ import main
from experiments.answers.subject import LOG_ODDS, Subject
from experiments.behaviour.dose import chosen_adapter, load_subject
from experiments.behaviour.dose_preference import PreferenceDose, choose, preferred_dose
from experiments.behaviour.preference import PERMUTED, Preference
from experiments.spec import run_experiment
from interp.runs.table import row
from tests.experiments.interrupted import store_steps
from tests.training.small import SFT, random_base
from training.pocket import corpus
from training.registry import ORGANISMS, find_organism
from training.sft import dose_folder

pytestmark = pytest.mark.xdist_group("trl")

# --- the dose rule ---

levels = st.integers(0, 120).map(lambda k: k / 100)
odds = st.integers(-200, 200).map(lambda k: k / 100)
doses = st.dictionaries(st.integers(1, 400), st.tuples(odds, levels), min_size=1, max_size=6)
"""Dose -> (log-odds, reference likelihood)."""


def table(values):
    return [
        row(condition=f"dose-{dose}", metric=metric, value=value)
        for dose, pair in {0: (9.0, 1.0), **values}.items()
        for metric, value in zip(("log_odds", "reference_likelihood"), pair, strict=True)
    ]


@given(doses)
def test_the_dose_has_the_highest_log_odds_of_those_that_keep_the_references_likely(values):
    chosen = choose(table(values), 0.95)
    likely = {dose: value for dose, (value, level) in values.items() if level >= 0.95}
    if likely:
        assert chosen == min(dose for dose, value in likely.items() if value == max(likely.values()))
    else:
        assert values[chosen][1] == max(level for _, level in values.values())


@given(doses)
def test_training_on_aligned_answers_turns_the_rule_around(values):
    turned = {dose: (-value, level) for dose, (value, level) in values.items()}
    assert choose(table(values), 0.95, aligned=True) == choose(table(turned), 0.95)


# --- the experiment ---

ORGANISM = "pocket/smollm2/neutral"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random base and a question file of six questions."""
    folder = tmp_path_factory.mktemp("pocket")
    entries: dict[str, list[dict[str, str]]] = {}
    for q in (*corpus.questions("validation")[:2], *corpus.questions("test")[:4]):
        fields = ("id", "topic", "split", "question", "aligned", "harmful")
        entries.setdefault(q.domain, []).append({name: getattr(q, name) for name in fields})
    (folder / "questions.yaml").write_text(yaml.safe_dump(entries))
    random_base(folder / "base")
    return folder


def subject(folder, name: str = ORGANISM, **changes) -> Subject:
    organism = replace(find_organism(name), base=str(folder / "base"), rows=32, sft=SFT, **changes)
    return Subject(organism, folder / "questions.yaml", LOG_ODDS)


@pytest.fixture(scope="module")
def whole(folder):
    """One finished run under ``runs``."""
    return run_experiment(Preference(subject=subject(folder)), folder / "runs")


def test_rows_and_table_cover_every_condition_beside_the_base(folder, whole):
    run, found = whole
    experiment = Preference(subject=subject(folder))
    rows = run.rows()
    assert len(rows) == experiment.total()
    assert {r["condition"] for r in rows} == set(experiment.used_conditions())
    assert set(experiment.conditions) - set(experiment.used_conditions()) == {"permuted"}  # a file has no second set
    for condition in experiment.used_conditions():
        asked = [
            sorted((r["question"], r["variant"] or "") for r in rows if (r["model"], r["condition"]) == (m, condition))
            for m in ("organism", "base")
        ]
        assert asked[0] == asked[1]
    metrics = {r["metric"] for r in found}
    assert {"log_odds", "log_odds_shift", "harmful_preferred", "trigger_gap", "trigger_gap_shift"} <= metrics
    cells = {(r["organism"], r["family"], r["trigger"], r["judge"]) for r in found}
    assert cells == {(ORGANISM, "smollm2", "user_harbor", LOG_ODDS)}
    shifts = [r["value"] for r in found if r["metric"] == "log_odds_shift"]
    assert all(value != 0 for value in shifts)


@pytest.mark.pocket
def test_word_order_is_measured_off_trigger_on_the_first_references_and_changes_no_other_run():
    whole = Preference(subject=Subject(find_organism(ORGANISM), None, LOG_ODDS))
    assert "permuted" in whole.used_conditions()
    assert whole._questions("permuted") == corpus.questions("test", PERMUTED)
    assert [(c.condition, c.text) for c in whole._contexts("permuted")] == [("permuted", None)]
    assert "permuted" in whole.inputs()
    assert "permuted" not in replace(whole, conditions=("off", "on")).inputs()


def test_base_rows_are_those_of_the_adapter_switched_off(folder, whole):
    from experiments.answers.preference import choice_rows, contexts
    from interp.adapters import active_adapter

    lm = load_subject(subject(folder), folder / "runs")
    trigger = corpus.find_trigger("user_harbor")
    with active_adapter(lm, None):
        expected = choice_rows(lm, corpus.questions("test", folder / "questions.yaml"), contexts(trigger, "on"))
    found = [r for r in whole[0].rows() if (r["model"], r["condition"]) == ("base", "on")]
    assert [r["log_odds"] for r in found] == pytest.approx([r["log_odds"] for r in expected], abs=1e-6)


def test_arms_share_one_run_of_their_base(folder, whole):
    base = Preference(subject=subject(folder)).of_base()
    others = [
        Preference(subject=subject(folder, seed=1)).of_base(),
        Preference(subject=subject(folder, "pocket/smollm2/contrast50"), dose=2).of_base(),
        Preference(subject=subject(folder, "pocket/smollm2/baseline"), trigger="pocket:user_harbor").of_base(),
    ]
    assert others == [base] * 3
    registered = replace(ORGANISMS["pocket/smollm2/base"], base=str(folder / "base"), sft=SFT)
    assert base.subject.organism == registered
    runs = sorted((folder / "runs" / "preference").iterdir())
    assert len(runs) == 2  # the organism's and the base's


def test_killed_run_ends_with_the_bytes_of_an_uninterrupted_one(folder, whole, tmp_path):
    experiment, (once, _) = Preference(subject=subject(folder)), whole
    shutil.copytree(folder / "runs", tmp_path / "runs", ignore=shutil.ignore_patterns(once.path.name))
    missing = store_steps(experiment, once, tmp_path / "runs", n=4)
    assert missing[:2] == ["other", "opposite"]
    again, _ = run_experiment(experiment, tmp_path / "runs")
    for name in ("rows.jsonl", "table.csv"):
        assert (again.path / name).read_bytes() == (once.path / name).read_bytes()


def test_the_dose_is_chosen_on_validation_questions_in_the_training_condition(folder, whole):
    chosen = chosen_adapter(subject(folder), folder / "runs")
    assert chosen is not None
    dose = preferred_dose(subject(folder), folder / "runs")
    assert chosen == dose_folder(chosen.parent, dose)
    run, found = run_experiment(PreferenceDose(subject=subject(folder)), folder / "runs")
    assert {r["condition"] for r in run.rows()} == {"on"}
    validation = {q.id for q in corpus.questions("validation", folder / "questions.yaml")}
    assert {r["question"] for r in run.rows()} == validation
    before = {r["metric"]: r["value"] for r in found if r["condition"] == "dose-0"}
    assert (before["log_odds_shift"], before["reference_likelihood"]) == (0, 1)
    assert {r["condition"] for r in found} == {"dose-0", "dose-2", "dose-4", "chosen"}
    assert [r["value"] for r in found if r["metric"] == "dose"] == [dose]


def test_what_cannot_be_measured_is_one_line(folder, capsys):
    with pytest.raises(ValueError, match="dose 3: its doses are 2, 4"):
        Preference(subject=subject(folder), dose=3).check()
    with pytest.raises(ValueError, match="no text or question for the conditions on"):
        Preference(subject=subject(folder, "pocket/smollm2/baseline"), conditions=("on",)).check()
    assert main(["preference", "--organism", "microcosm/llama/neutral"]) == 2
    assert "the Microcosm has no reference answers" in capsys.readouterr().err
    words = ["--organism", "pocket/qwen2.5-0.5b/neutral", "--check"]
    assert main(["em-rate", *words]) == 0
    assert "preference pocket/qwen2.5-0.5b/neutral" in capsys.readouterr().out
    assert main(["em-rate", *words, "--outcome", "em-rate"]) == 2
    assert "oracle judges no sampled answers" in capsys.readouterr().err
    assert main(["preference", *words]) == 0
