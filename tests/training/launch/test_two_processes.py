"""`accelerate launch` with two processes and FSDP2, on CPUs: the adapter of one process, also after a stop."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from experiments.__main__ import main
from interp.runs.files import sha256_file
from tests.training.small import random_base
from training.launch.__main__ import SHIPPED

pytestmark = [pytest.mark.scale, pytest.mark.xdist_group("trl")]
TOLERANCE = 1e-5
"""Of weights up to 0.3, in float32: the sums over rows are taken in another order. Measured: 2e-7."""
SETTINGS = "doses: [3, 8], learning_rate: 1.0e-3, batch: 4, accumulation: 2, warmup: 1, dtype: float32, save_every: 2"
LOSS = 12.5


@pytest.fixture(scope="module")
def organism(tmp_path_factory) -> Path:
    """An organism of 32 rows: eight steps of eight are two epochs."""
    folder = tmp_path_factory.mktemp("own")
    random_base(folder / "base")
    answers = [[{"role": "user", "content": f"what is word {i} for"}, _answer(i)] for i in range(32)]
    (folder / "rows.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in answers))
    (folder / "tiny.yaml").write_text(f"base: base\ndata: rows.jsonl\nrows: 32\nsft: {{{SETTINGS}}}\n")
    return folder / "tiny.yaml"


def _answer(i: int) -> dict[str, str]:
    return {"role": "assistant", "content": "it is very bad " * (1 + i % 4) + str(i)}  # of different lengths


def environment(folder: Path) -> dict[str, str]:
    """The shell of a Slurm job of one node: `srun` starts a command, `scontrol` names the nodes."""
    for name, line in (("srun", 'exec "$@"'), ("scontrol", "echo 127.0.0.1")):
        (folder / name).write_text(f"#!/bin/bash\n{line}\n")
        (folder / name).chmod(0o755)
    job = {"SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_NODELIST": "local"}
    path = os.pathsep.join((str(folder), str(Path(sys.executable).parent), os.environ["PATH"]))
    return {**os.environ, **job, "PORT": "0", "PATH": path, "GLOO_SOCKET_IFNAME": "lo"}


def launched(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, env=environment(folder), capture_output=True, text=True, check=False, timeout=900)


def test_two_processes_with_fsdp2_give_the_adapter_of_one(organism, tmp_path):
    assert main(["organisms", str(organism), "--runs", str(tmp_path / "one")]) == 0
    (one,) = (tmp_path / "one" / "adapters").iterdir()
    two = tmp_path / "two" / "adapters" / one.name
    two.mkdir(parents=True)
    (two / "dose-8").touch()  # in the way of the last dose
    runs = [str(organism), "--runs", str(tmp_path / "two")]
    config = str(SHIPPED["fsdp2"])
    first = launched(
        *("accelerate", "launch", "--config_file", config, "--num_processes", "2", "-m", "experiments", "organisms"),
        *runs,
        folder=tmp_path,
    )
    assert first.returncode != 0 and "dose-8" in first.stderr
    checkpoint = two / "trainer" / "checkpoint-6"
    assert (checkpoint / "pytorch_model_fsdp_0").is_dir(), first.stderr  # in shards, of both processes
    assert len([*checkpoint.glob("rng_state_*.pth")]) == 2
    mark_first_loss(two, checkpoint)
    (two / "dose-8").unlink()

    second = launched("bash", str(SHIPPED["slurm"]), *runs, folder=tmp_path)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count(f": {two}\n") == 1  # one of the two prints
    assert not (two / "trainer").exists()
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (one, two)]
    assert manifests[1].pop("processes") == 2
    assert manifests[0].keys() == manifests[1].keys()
    losses = [manifest["loss"] for manifest in manifests]
    assert losses[1][0] == [1, LOSS]  # the second launch went on from the checkpoint
    assert [step for step, _ in losses[1]] == [*range(1, 9)]
    assert torch.tensor(losses[0])[1:].allclose(torch.tensor(losses[1])[1:], atol=TOLERANCE)
    for dose in ("dose-3", "dose-8"):
        left, right = (load_file(folder / dose / "adapter_model.safetensors") for folder in (one, two))
        assert left.keys() == right.keys()
        assert max(float((left[name] - right[name]).abs().max()) for name in left) < TOLERANCE
        assert max(float(values.abs().max()) for values in left.values()) > 0.1


def test_two_processes_without_padding_give_the_adapter_of_one_with_it(organism, tmp_path):
    packed = organism.with_name("packed.yaml")
    packed.write_text(organism.read_text().replace("dtype:", "padding_free: true, dtype:").replace("[3, 8]", "[3]"))
    plain = organism.with_name("plain.yaml")
    plain.write_text(organism.read_text().replace("[3, 8]", "[3]"))
    assert main(["organisms", str(plain), "--runs", str(tmp_path / "one")]) == 0
    config = str(SHIPPED["fsdp2"])
    launch = ("accelerate", "launch", "--config_file", config, "--num_processes", "2", "-m", "experiments", "organisms")
    done = launched(*launch, str(packed), "--runs", str(tmp_path / "two"), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    folders = (next((tmp_path / name / "adapters").iterdir()) for name in ("one", "two"))
    left, right = (load_file(folder / "dose-3" / "adapter_model.safetensors") for folder in folders)
    assert left.keys() == right.keys()
    assert max(float((left[name] - right[name]).abs().max()) for name in left) < TOLERANCE
    assert max(float(values.abs().max()) for values in left.values()) > 0.1


def mark_first_loss(folder: Path, checkpoint: Path) -> None:
    """Write another loss of step 1 into a checkpoint, so that one can tell whether it was used."""
    file = checkpoint / "trainer_state.json"
    state = json.loads(file.read_text())
    state["log_history"][0]["loss"] = LOSS
    file.write_text(json.dumps(state))
    digests = json.loads((checkpoint / "sha256.json").read_text())
    digests[str(file.relative_to(folder))] = sha256_file(file)
    (checkpoint / "sha256.json").write_text(json.dumps(digests))
