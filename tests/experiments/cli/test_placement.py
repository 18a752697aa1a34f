"""Where models run and in which dtype: options of every command that runs one; only another dtype is another run."""

import json

import pytest
import torch

import training.loading
from experiments.__main__ import main
from experiments.answers.subject import find_subject
from experiments.behaviour.dose import Dose
from experiments.cli.launch import parse
from experiments.cli.placement import BATCH_TOKENS, DEVICE, Placement
from experiments.registry import REGISTRY
from experiments.spec import identity
from interp.loading import DEVICE as LOADED_ON
from interp.recording import BATCH, pass_tokens
from training.loading import DTYPE, load_organism

NO_MODEL = {
    "init",
    "inspect-log",
    "figure",
    "score",
    "store",
    "verify",
    "report",
    "findings",
    "organisms",
    "microcosm",
    "data",
    "judge",
    "plan",
    "protocol",
    "publish",
}
"""Commands that run no model, and the two that make models, which have a device or run on the CPU."""
ORGANISM = "microcosm/llama/explaining"


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in (DEVICE, DTYPE, BATCH_TOKENS):
        monkeypatch.setenv(name, "")  # so that it is restored afterwards
        monkeypatch.delenv(name)


def test_the_environment_has_one_name_for_each_option():
    assert (DEVICE, BATCH_TOKENS) == (LOADED_ON, BATCH)


@pytest.mark.parametrize("command", sorted(set(REGISTRY) - NO_MODEL))
def test_every_command_that_runs_a_model_has_the_options(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    assert all(option in text for option in ("--device", "--dtype", "--batch-tokens"))


def printed_config(capsys, *words: str) -> dict:
    assert main(["em-rate", "--organism", ORGANISM, "--print-config", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_is_the_same_on_every_device_and_another_in_another_dtype(capsys):
    config = printed_config(capsys)
    run = identity(Dose(subject=find_subject(ORGANISM)))
    assert printed_config(capsys, "--device", "cpu", "--batch-tokens", "512") == config
    assert printed_config(capsys, "--dtype", "float32") == config  # the organism's own
    assert identity(Dose(subject=find_subject(ORGANISM))) == run
    changed = printed_config(capsys, "--dtype", "bfloat16")
    assert changed["answers"].pop("dtype") == "bfloat16" and changed == config
    assert identity(Dose(subject=find_subject(ORGANISM)))["config"] == {**run["config"], "dtype": "bfloat16"}


def test_models_are_measured_as_asked_and_it_is_said_once(capsys):
    Placement(device="cpu", dtype="bfloat16", batch_tokens=7).apply()
    training.loading._say.cache_clear()  # another test may have had it said
    organism = find_subject("microcosm/llama/base").organism
    for _ in range(2):
        lm = load_organism(organism)
        assert (lm.device.type, lm.dtype, pass_tokens()) == ("cpu", torch.bfloat16, 7)
    assert capsys.readouterr().err.count("models are on cpu, bfloat16\n") == 1
    assert load_organism(organism, dtype="float32").dtype == torch.float32 and pass_tokens(9) == 9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--device", "gpu"), "device 'gpu': not a device; this machine has cpu"),
        (("--device", "cuda:77"), "device 'cuda:77': this machine has cpu"),
        (("--dtype", "int8"), "int8"),
        (("--batch-tokens", "0"), "batch_tokens 0: expected greater than or equal to 1"),
    ],
)
def test_a_wrong_option_is_one_line_before_any_work(words, message, capsys):
    assert main(["em-rate", "--organism", ORGANISM, *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (DEVICE, "gpu", "device 'gpu'"),
        (DTYPE, "int8", "dtype 'int8'"),
        (BATCH_TOKENS, "many", "batch_tokens 'many'"),
        (BATCH_TOKENS, "0", "batch_tokens 0"),
    ],
)
def test_a_wrong_value_of_the_environment_is_one_line_before_any_work(name, value, message, monkeypatch, capsys):
    monkeypatch.setenv(name, value)
    assert main(["em-rate", "--organism", ORGANISM, "--check"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    if name == BATCH_TOKENS:
        with pytest.raises(ValueError, match=f"{BATCH_TOKENS}={value}"):
            pass_tokens()


def test_a_placement_is_read_from_the_options():
    assert parse(Placement, ["--device", "cpu"], "x", about=Placement) == Placement(device="cpu")
