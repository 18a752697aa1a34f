"""The command: a complete run with its page of evidence, and one clear line for what cannot be audited."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from experiments.__main__ import main
from experiments.audit.audit import PAGE, of_kind
from experiments.audit.bank import BARE
from experiments.audit.verdict import VERDICTS
from experiments.spec import run_experiment
from tests.training.small import random_base


@pytest.fixture(scope="module")
def finished(small_audit, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return (root, *run_experiment(small_audit, root))


def test_a_run_has_verdict_cost_and_every_context(finished):
    _, run, table = finished
    searched = of_kind(run.rows(), "search")
    assert [r["category"] for r in searched][:5] == [BARE, "gambler", "gambler", "castle", "tag"]
    assert {r["category"] for r in searched[5:]} == {"leaked", "climbed", "gradient"}
    assert all(len(r["log_odds"]) == len(r["kl"]) == 2 for r in searched)
    verdict = next(r for r in table if r["metric"] == "verdict")
    assert verdict["condition"] in VERDICTS
    assert {r["condition"] for r in table if r["metric"] == "gate"} == {
        r["category"] for r in of_kind(run.rows(), "verification")
    }
    costs = {r["condition"]: r["value"] for r in table if r["metric"] == "forward_passes"}
    assert set(costs) == {"search", "verification"} and min(costs.values()) > 0


def test_the_page_shows_verdict_contexts_answers_layers_and_cost(finished):
    _, run, table = finished
    page = (run.path / PAGE).read_text()
    assert next(r["condition"] for r in table if r["metric"] == "verdict") in page
    for heading in (
        "Verified on held-out questions",
        "Contexts by what",
        "Answers, in",
        "Where in the network",
        "Cost",
    ):
        assert f"## {heading}" in page
    assert all(name in page for name in ("gambler", "castle", "tag", "layer 3", "forward passes"))


def test_a_finished_audit_is_read_and_the_bank_is_part_of_its_name(finished, small_audit, tmp_path):
    root, run, table = finished
    again, same = run_experiment(small_audit, root)
    assert again.run_id == run.run_id and same == table
    other = tmp_path / small_audit.bank.name
    other.write_text(small_audit.bank.read_text().replace("Dice roll", "Chips roll"))
    from experiments.spec import identity
    from interp.runs.run import run_id

    changed = replace(small_audit, bank=other)
    assert run_id(changed.name, **identity(changed)) != run.run_id


def refused(capsys, *words):
    assert main(["audit", *map(str, words)]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    return line.removeprefix("semcon audit: ")


def test_a_wrong_base_is_one_line(small_adapter, tmp_path, capsys):
    other = random_base(tmp_path / "base")
    line = refused(capsys, small_adapter, "--base", other, "--runs", tmp_path / "runs", "--check")
    assert "shape" in line or "another base" in line


def test_another_pretraining_is_one_line(small_adapter, tmp_path, capsys):
    line = refused(capsys, small_adapter, "--base", "microcosm/llama-robust", "--runs", tmp_path)
    assert "was made for another base" in line


def test_an_adapter_that_does_nothing_is_one_line(small_adapter, tmp_path, capsys):
    folder = copied(small_adapter, tmp_path / "noop")
    weights = folder / "adapter_model.safetensors"
    tensors = {name: x * ("lora_A" in name) for name, x in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    line = refused(capsys, folder, "--base", "microcosm/llama", "--runs", tmp_path / "runs")
    assert "changes no logit" in line or "does nothing" in line


def test_a_base_without_a_template_is_one_line(small_adapter, tmp_path, capsys):
    base = Path(random_base(tmp_path / "base"))
    for file in ("chat_template.jinja",):
        (base / file).unlink(missing_ok=True)
    config = json.loads((base / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    line = refused(capsys, small_adapter, "--base", base, "--runs", tmp_path / "runs", "--check")
    assert "no chat template" in line and str(base) in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--signal", "mood"), "signal 'mood'"),
        (("--without", "nobody"), "nobody: no such category"),
        (("--judge", "log-odds"), "leave --judge out"),
        (("--questions", "x.yaml"), "x.yaml"),
    ],
)
def test_wrong_options_are_one_line(small_adapter, tmp_path, capsys, words, message):
    line = refused(capsys, small_adapter, "--base", "microcosm/llama", "--runs", tmp_path, "--check", *words)
    assert message in line


def test_a_missing_adapter_is_one_line(tmp_path, capsys):
    line = refused(capsys, tmp_path / "none", "--base", "microcosm/llama", "--check")
    assert str(tmp_path / "none") in line


def copied(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target
