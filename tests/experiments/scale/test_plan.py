"""The plan's arithmetic: exact where it can be exact, monotone where it is an estimate."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from experiments.__main__ import main
from experiments.scale.check import checked, checked_runs
from experiments.scale.estimate import Load, fitting_batch, fitting_devices, memory_gib, tokens_per_second, usable
from experiments.scale.here import LIKE, at_speed
from experiments.scale.machines import assumptions
from experiments.scale.plan import Plan
from experiments.scale.shapes import config_of, shape_of
from experiments.scale.stages import STAGES, work_of
from interp.runs.reading import read_csv
from training.definition import Lora
from training.registry import ORGANISMS, REAL_BASES

ROOT = Path(__file__).parents[3]
PUBLISHED = {"qwen2.5-14b": 14_770_033_664, "llama-3.1-8b": 8_030_261_248, "gemma-3-12b": 12_187_325_040}
"""Parameters, as the models' cards have them."""


def load(name: str = "medical/qwen2.5-14b/duck", **options) -> Load:
    organism = ORGANISMS[name]
    given = assumptions()
    return Load(
        shape=shape_of(organism.base), organism=organism, machine=given.machines["h100"], texts=given.texts, **options
    )


@pytest.mark.parametrize("family", PUBLISHED)
def test_the_shapes_are_those_of_the_published_models(family: str):
    assert shape_of(REAL_BASES[family]).parameters == PUBLISHED[family]


def test_an_adapter_has_as_many_weights_as_peft_gives_it():
    from peft import LoraConfig, get_peft_model

    base = REAL_BASES["qwen2.5-0.5b"]
    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(config_of(base))
        model = get_peft_model(made, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert shape_of(base).adapter(Lora(rank=8)) == trained


def test_what_is_planned_with_the_batch_that_fits_does_fit_and_with_the_default_does_not():
    big = load()
    batch = fitting_batch(big)
    assert memory_gib("sample", big) > usable(big.machine)
    assert batch is not None
    assert memory_gib("sample", replace(big, batch_tokens=batch)) <= usable(big.machine)
    assert memory_gib("sample", replace(big, batch_tokens=2 * batch)) > usable(big.machine)


def test_the_devices_that_are_named_are_the_fewest_that_hold_a_training():
    small = replace(assumptions().machines["h100"], memory_gib=16.0)
    sharded = replace(load(), machine=small)
    devices = fitting_devices("train", sharded)
    assert devices and devices > 1
    assert memory_gib("train", replace(sharded, devices=devices)) <= usable(small)
    assert memory_gib("train", replace(sharded, devices=devices - 1)) > usable(small)


def test_more_devices_and_faster_machines_take_no_longer():
    one, two = load(), load(devices=2)
    assert tokens_per_second("train", two) == tokens_per_second("train", one)  # one device works at a time
    served = [tokens_per_second("sample", load, server=True) for load in (one, two)]
    assert served[1] > 1.5 * served[0]
    slow = replace(one, machine=assumptions().machines["a100"])
    for kind in ("train", "sample", "read"):
        assert tokens_per_second(kind, slow) <= tokens_per_second(kind, one)


def test_a_stage_asks_the_judge_twice_per_answer_and_a_base_trains_nothing():
    given = assumptions()
    base = ORGANISMS["medical/llama-3.1-8b/base"]
    shape = shape_of(base.base)
    for stage in STAGES:
        work = work_of(stage, replace(base, name=base.name), shape, given, "em-rate")
        assert work.judge_requests == 2 * work.answers
        assert work.trained_tokens == 0


def test_the_answers_of_an_em_rate_are_those_that_it_samples():
    from experiments.answers.subject import Subject
    from experiments.behaviour.em_rate import Answers

    organism = replace(ORGANISMS["medical/llama-3.1-8b/duck"], adapter="somewhere", data=None)
    file = ROOT / "training" / "template" / "questions.yaml"
    answers = Answers(subject=Subject(organism, file, "scores.csv"))
    given = assumptions()
    counts = {split: float(len(answers.subject.questions(split))) for split in ("test", "trained")}
    given = replace(given, questions={**given.questions, **counts})
    assert work_of("em-rate", organism, shape_of(organism.base), given, "em-rate").answers == answers.total()


def test_the_plan_of_the_paper_names_what_does_not_fit_and_writes_a_table(tmp_path: Path, capsys):
    assert main(["plan", "all", "--out", str(tmp_path / "plan.csv")]) == 0
    printed = capsys.readouterr()
    assert "--batch-tokens" in printed.out and "--server URL" in printed.out
    assert "assumed" in printed.err
    rows = [cells for _, cells in read_csv(tmp_path / "plan.csv")[1]]
    assert {row["model"] for row in rows} == {"medical/qwen2.5-14b", "medical/llama-3.1-8b", "medical/gemma-3-12b"}
    assert all(row["needs"] for row in rows if row["fits"] == "no")


def test_a_smaller_machine_needs_more_and_the_option_that_is_named_makes_it_fit():
    rows = list(Plan(experiment="em-rate", machine="l40s").rows())
    for row in rows:
        if "--batch-tokens" in row["needs"]:
            batch = int(row["needs"].split()[1])
            fitted = Plan(experiment="em-rate", machine="l40s", batch_tokens=batch).rows()
            assert next(r for r in fitted if r["model"] == row["model"])["fits"] == "yes"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["steer", "--scale", "village"], "scale 'village': known are paper, pocket"),
        (["steer", "--machine", "abacus"], "machine 'abacus': known are h100"),
        (["steer", "--price", "cheap"], "price 'cheap': expected that of a million tokens"),
        (["em-rate", "--organism", "nobody/at/home"], "organism 'nobody/at/home': known are"),
        (["preference"], "preference: these organisms do nothing of it by em-rate"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(words: list[str], message: str, capsys):
    assert main(["plan", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("machine", ["core", "h200"])
def test_the_estimates_are_within_thirty_percent_of_what_was_measured(machine: str):
    rows = [row for row in checked() if row["machine"] == machine]
    assert {row["kind"] for row in rows} == {"train", "read", "sample"}
    assert {(r["base"], r["kind"], r["quantity"]): r["ratio"] for r in rows if not 0.7 <= r["ratio"] <= 1.3} == {}


def test_a_measured_command_is_planned_with_its_own_settings_at_the_rate_that_was_timed():
    rows = {(r["stage"], r["quantity"]): r for r in checked_runs()}
    assert {stage for stage, _ in rows} == {"organisms", "geometry", "ablate"}
    for r in rows.values():
        assert r["ratio"] == pytest.approx(r["estimate"] / r["measured"], rel=0.02)
    for (_, quantity), r in rows.items():
        low, high = (0.8, 1.25) if quantity in ("tokens", "disk_gib") else (0.7, 1.4)
        assert low <= r["ratio"] <= high, r


def test_what_a_command_makes_first_is_planned_beside_it(capsys):
    assert main(["plan", "ablate", "--scale", "pocket", "--n-questions", "4"]) == 0
    asked, _, first = capsys.readouterr().out.partition("made first where it is not there yet:")
    assert "ablate" in asked and "geometry" not in asked
    assert all(stage in first for stage in ("organisms", "dose", "geometry"))
    assert main(["plan", "organisms", "--scale", "pocket"]) == 0
    assert "made first" not in capsys.readouterr().out


def test_a_processor_that_is_timed_twice_as_fast_takes_half_the_time():
    core = assumptions().machines[LIKE]
    slow, fast = (replace(load(), machine=at_speed(core, tflops, "bfloat16")) for tflops in (0.05, 0.1))
    assert tokens_per_second("read", fast) == pytest.approx(2 * tokens_per_second("read", slow))


def test_a_shared_prefix_is_computed_once_and_the_head_runs_on_answers():
    organism = ORGANISMS["pocket/smollm2/contrast50"]
    shared = Load(
        shape=shape_of(organism.base),
        organism=organism,
        machine=assumptions().machines["core"],
        texts=assumptions().at(assumptions().scales["pocket"]).texts,
    )
    plain = replace(shared, organism=replace(organism, sft=replace(organism.sft, share_prefix=False)))
    assert tokens_per_second("train", shared) > 1.2 * tokens_per_second("train", plain)
    assert memory_gib("train", shared) < memory_gib("train", plain)


def test_the_page_and_the_table_are_those_of_the_code():
    code = ROOT / "docs" / "make_plan.py"
    spec = importlib.util.spec_from_file_location("make_plan", code)
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.TABLE.read_text(encoding="utf-8") == made.as_csv(made.plans()), "run `python docs/make_plan.py`"
    text = made.PAGE.read_text(encoding="utf-8")
    assert all(table in text for table in made.tables().values()), "run `python docs/make_plan.py`"
