"""How the processes of a launch share a step, and what they refuse."""

import subprocess
import sys
from dataclasses import replace

import pytest

from experiments.__main__ import main
from tests.training.small import SFT, small
from training.definition import Mitigation
from training.launch.checkpoints import CHECKSUMS, last_checkpoint
from training.launch.processes import by_main, check_launch, of_main, split


@pytest.fixture
def processes(monkeypatch):
    def launch(count, rank=0):
        for name, value in (("WORLD_SIZE", count), ("RANK", rank), ("LOCAL_RANK", rank)):
            monkeypatch.setenv(name, str(value))

    monkeypatch.delenv("SEMCON_DEVICE")
    return launch


def subject(batch, accumulation=1, rows=32, doses=(2, 4), **changes):
    sft = replace(SFT, batch=batch, accumulation=accumulation, doses=doses)
    return small("neutral", sft=sft, rows=rows, **changes)


@pytest.mark.parametrize(
    ("batch", "accumulation", "count", "shares"),
    [
        (16, 1, 2, (8, 1)),
        (2, 8, 2, (2, 4)),
        (2, 8, 8, (2, 1)),
        (2, 8, 16, (1, 1)),
        (6, 2, 3, (4, 1)),
        (3, 5, 3, (1, 5)),
    ],
)
def test_a_step_has_the_rows_of_one_process_and_no_larger_passes(processes, batch, accumulation, count, shares):
    organism = subject(batch, accumulation, rows=batch * accumulation * 4)
    assert split(organism) == (batch, accumulation)
    processes(count)
    rows, passes = split(organism)
    assert (rows, passes) == shares
    assert rows * passes * count == batch * accumulation and rows <= batch


def test_rows_that_cannot_be_shared_evenly_are_refused(processes):
    processes(3)
    with pytest.raises(ValueError, match=r"3 processes cannot share the 16 rows of a step .* evenly"):
        check_launch(subject(16))
    processes(2)
    with pytest.raises(ValueError, match="cannot share the 35 rows of an epoch evenly; set rows: 32"):
        check_launch(subject(16, rows=35))
    check_launch(subject(16, rows=35, doses=(1, 2)))  # ends within the first epoch


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mitigation": Mitigation(base_kl=1.0)}, "train in one process"),
        ({"mitigation": Mitigation(steer=1.0)}, "train in one process"),
        ({"mitigation": Mitigation(ablate_g=True)}, "needs one process"),
        ({"sft": replace(SFT, share_prefix=True)}, "train in one process"),
    ],
)
def test_what_changes_the_loss_is_refused(processes, changes, message):
    check_launch(small("neutral", **changes))
    processes(2)
    with pytest.raises(ValueError, match=message):
        check_launch(small("neutral", **changes))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ACCELERATE_MIXED_PRECISION", "bf16", "mixed_precision bf16 in the launch config"),
        ("SEMCON_DEVICE", "cuda:1", "--device cuda:1 is one for all of them"),
        ("SEMCON_DEVICE", "auto", "--device auto is one for all"),
    ],
)
def test_a_setting_against_the_launch_is_refused(processes, monkeypatch, name, value, message):
    processes(2)
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        check_launch(subject(16))


def test_only_the_main_process_says_why(processes, capsys):
    processes(2, rank=1)
    with pytest.raises(SystemExit) as ended:
        check_launch(subject(5))
    assert ended.value.code == 2
    assert capsys.readouterr().err == ""


def test_any_other_command_is_refused_in_several_processes(processes, capsys):
    processes(2)
    assert main(["em-rate"]) == 2
    assert capsys.readouterr().err == (
        "semcon em-rate: started in 2 processes; only `semcon organisms` trains in several\n"
    )


def test_one_process_is_the_main_one():
    assert of_main("here") == "here"
    assert by_main(lambda: "done") == "done"


def test_shipped_configs_are_found_by_name():
    def found(*names):
        return subprocess.run(
            [sys.executable, "-m", "training.launch", *names], capture_output=True, text=True, check=False
        )

    for name in ("fsdp2", "single-gpu", "slurm"):
        assert f"training/launch/{name}." in found(name).stdout
    wrong = found("fsdp3")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "python -m training.launch fsdp3: expected one of fsdp2, single-gpu, slurm\n"


def test_a_checkpoint_of_another_launch_is_refused(tmp_path):
    checkpoint = tmp_path / "trainer" / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    for name in ("rng_state_0.pth", "rng_state_1.pth"):
        (checkpoint / name).touch()
    assert last_checkpoint(tmp_path) is None  # nobody vouched for it
    (checkpoint / CHECKSUMS).write_text("{}")
    with pytest.raises(ValueError, match="checkpoint-2: written by 2 processes, not 1 process; go on as before, or"):
        last_checkpoint(tmp_path)
