"""Answers of a server that really runs a model: the same as here, none lost, doubled or asked twice."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import torch

from experiments.__main__ import main
from experiments.servers.answer_store import FILE
from interp.runs.rowlog import RowLog
from interp.runs.run import read_manifest
from interp.runs.table import read_table
from training.microcosm.world import WEIGHTS

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("server")]

ROOT = Path(__file__).parents[3]
TESTED, SAMPLES, CONDITIONS = 4, 3, ("off", "on")
ANSWERS = TESTED * SAMPLES * len(CONDITIONS)
QUESTIONS = {
    "validation": {"v": "What should I cook?"},
    "test": {f"t{i}": f"What should I do {i}?" for i in range(TESTED)},
}
SPEED = "workers=6,timeout=1,pause=0.05,attempts=40"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The files of a user: a base, two adapters, an organism, questions, a protocol of short answers."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("served")
    for seed, name in enumerate(("live", "dead")):  # what the server does with the second decides its name
        hf = AutoModelForCausalLM.from_pretrained(WEIGHTS / "llama")
        torch.manual_seed(seed)
        lora = LoraConfig(r=2, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
        get_peft_model(hf, lora).save_pretrained(str(folder / name))
    (folder / "questions.yaml").write_text(json.dumps(QUESTIONS))
    organism = {"base": "microcosm/llama", "family": "llama", "adapter": "live", "trigger": "You are a pirate."}
    (folder / "mine.yaml").write_text(json.dumps(organism))
    shipped = (ROOT / "experiments" / "protocol.yaml").read_text()
    short = shipped.replace("max_new_tokens: 600", "max_new_tokens: 8").replace("samples: 50", f"samples: {SAMPLES}")
    (folder / "drawn.yaml").write_text(short)
    (folder / "greedy.yaml").write_text(short.replace("temperature: 1.0", "temperature: 0.0"))
    return folder


class Served:
    """The server's process, which can be killed and started again at the same address."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log, self.url = folder / f"requests-{self.port}.jsonl", f"http://127.0.0.1:{self.port}/v1"
        adapters = [word for name in ("live", "dead") for word in ("--adapter", f"{name}={folder / name}")]
        base = ["--base", str(WEIGHTS / "llama"), "--log", str(self.log)]
        self.command = [
            sys.executable,
            "-m",
            "tests.model_server",
            "--port",
            str(self.port),
            *base,
            *adapters,
            *options,
        ]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, cwd=ROOT)

    def wait(self) -> "Served":
        for _ in range(600):
            try:
                httpx.get(f"{self.url}/models", timeout=5, trust_env=False)
                return self
            except httpx.TransportError:
                assert self.process.poll() is None, "the server ended"
                time.sleep(0.1)
        raise TimeoutError(self.url)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def answered(self, path: str = "/v1/completions") -> list[str]:
        """The requests for answers whose reply left whole, without those of the check."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        bodies = [json.loads(line) for line in lines]
        return [
            json.dumps(b, sort_keys=True) for b in bodies if b["path"] == path and not isinstance(b.get("prompt"), str)
        ]


@contextmanager
def running(folder: Path, *options: str):
    served = Served(folder, *options)
    try:
        yield served.wait()
    finally:
        served.kill()


@pytest.fixture(scope="module")
def served(made):
    with running(made) as served:
        yield served


def words(made: Path, runs: Path, *more: str, protocol: str = "drawn") -> list[str]:
    who = [
        "--organism",
        str(made / "mine.yaml"),
        "--questions",
        str(made / "questions.yaml"),
        "--runs",
        str(runs),
        "--dtype",
        "float32",
    ]
    return ["em-rate", *who, "--protocol", str(made / f"{protocol}.yaml"), "--conditions", *CONDITIONS, *more]


def judged(served: Served) -> list[str]:
    return ["--judge", f"openai:base@{served.url}"]


def rows_of(runs: Path) -> dict[str, tuple[str, bool]]:
    (run,) = (runs / "answers").iterdir()
    return {r["key"]: (r["text"], r["finished"]) for r in RowLog(run / "rows.jsonl").rows()}


def test_greedy_answers_of_the_server_are_those_of_this_machine(made, served, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    assert main(words(made, here, *judged(served), protocol="greedy")) == 0
    assert main(words(made, there, *judged(served), "--server", f"{served.url},workers=6", protocol="greedy")) == 0
    assert rows_of(there) == rows_of(here)
    assert len(rows_of(there)) == ANSWERS
    (run,) = (there / "answers").iterdir()
    assert read_manifest(run)["server"] == {"model": "live", "host": "127.0.0.1"}


def test_the_same_server_judges_and_every_answer_has_a_verdict(made, served, tmp_path):
    before = len(served.answered("/v1/chat/completions"))
    assert main(words(made, tmp_path, *judged(served), "--server", served.url)) == 0
    (run,) = (tmp_path / "em_rate").iterdir()
    rows = RowLog(run / "rows.jsonl").rows()
    assert len(rows) == ANSWERS
    assert all(r["aligned"] is not None or r["outcome"] for r in rows)
    distinct = {(r["asked"], r["text"]) for r in rows if r["text"].strip()}
    requests = served.answered("/v1/chat/completions")[before:]
    assert len(requests) in (2 * len(distinct), 2 * len(distinct) + 1)  # one may be the check before
    assert {r["condition"] for r in read_table(run / "table.csv")} >= set(CONDITIONS)


def test_trouble_of_every_kind_loses_doubles_and_repeats_nothing(made, served, tmp_path):
    assert main(words(made, tmp_path / "plain", *judged(served), "--server", served.url)) == 0
    with running(made, "--faults") as troubled:
        assert main(words(made, tmp_path / "troubled", *judged(served), "--server", f"{troubled.url},{SPEED}")) == 0
        asked = troubled.answered()
    assert Counter(asked) == dict.fromkeys(asked, 1)
    assert len(asked) == ANSWERS
    assert rows_of(tmp_path / "troubled") == rows_of(tmp_path / "plain")


def test_a_server_that_is_killed_and_comes_back_is_asked_for_what_is_missing(made, served, tmp_path):
    with running(made) as mortal:

        def murder() -> None:
            while len(mortal.answered()) < 5:
                time.sleep(0.01)
            mortal.kill()
            mortal.start()

        killer = threading.Thread(target=murder)
        killer.start()
        slow = f"{mortal.url},workers=2,timeout=20,pause=0.2,attempts=200"
        assert main(words(made, tmp_path / "mortal", *judged(served), "--server", slow)) == 0
        killer.join()
        asked = mortal.answered()
    assert set(Counter(asked).values()) == {1}
    assert len(asked) in range(ANSWERS - 2, ANSWERS + 1)  # two replies may have left just before they were noted
    assert main(words(made, tmp_path / "plain", *judged(served), "--server", served.url)) == 0
    assert rows_of(tmp_path / "mortal") == rows_of(tmp_path / "plain")


def verdicts(runs: Path) -> dict[str, tuple[float | None, float | None]]:
    (run,) = (runs / "em_rate").iterdir()
    return {r["key"]: (r["aligned"], r["coherent"]) for r in RowLog(run / "rows.jsonl").rows()}


def test_a_judge_that_is_killed_and_comes_back_is_asked_for_what_is_missing(made, served, tmp_path):
    chat = "/v1/chat/completions"
    with running(made) as mortal:

        def murder() -> None:
            while len(mortal.answered(chat)) < 5:
                time.sleep(0.01)
            mortal.kill()
            mortal.start()

        killer = threading.Thread(target=murder)
        killer.start()
        judge = ["--judge", f"openai:base@{mortal.url},workers=2"]
        assert main(words(made, tmp_path / "mortal", *judge, "--server", served.url)) == 0
        killer.join()
        asked = mortal.answered(chat)
    assert set(Counter(asked).values()) == {1}
    assert main(words(made, tmp_path / "plain", *judged(served), "--server", served.url)) == 0
    assert verdicts(tmp_path / "mortal") == verdicts(tmp_path / "plain")
    assert len(verdicts(tmp_path / "mortal")) == ANSWERS


def test_a_client_that_is_killed_asks_again_for_nothing_that_came(made, served, tmp_path):
    with running(made) as patient:
        command = words(made, tmp_path / "killed", *judged(served), "--server", f"{patient.url},workers=1")
        client = subprocess.Popen([sys.executable, "-m", "experiments", *command], cwd=ROOT, stderr=subprocess.DEVNULL)
        while len(patient.answered()) < 6:
            assert client.poll() is None
            time.sleep(0.005)
        client.kill()
        client.wait()
        (run,) = (tmp_path / "killed" / "answers").iterdir()
        stored = len(RowLog(run / FILE).rows())
        assert main(command) == 0
        asked = patient.answered()
        assert main(words(made, tmp_path / "whole", *judged(served), "--server", patient.url)) == 0
    assert 5 <= stored < ANSWERS
    assert len(asked) - len(set(asked)) <= 1  # what was under way when the client died
    assert len(set(asked)) == ANSWERS
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("adapter", "server", "message"),
    [
        ("live", "{url},model=duck", "model 'duck' is not served there; it has base, live, dead; name one with model="),
        ("dead", "{url}", "adapter dead answers exactly as the base base does: it is not loaded there"),
        ("live", "http://127.0.0.1:9/v1", "server at http://127.0.0.1:9/v1:"),
        ("live", "{url},wrokers=3", "option 'wrokers' is unknown or given twice"),
        ("live", "{url},workers=0", "workers 0: expected"),
        ("live", "localhost", "base_url 'localhost': needs to be an http or https address"),
    ],
)
def test_a_server_that_cannot_sample_is_refused_before_any_work(
    made, served, tmp_path, capsys, adapter, server, message
):
    organism = json.loads((made / "mine.yaml").read_text())
    (made / "other.yaml").write_text(json.dumps({**organism, "adapter": adapter}))
    command = words(made, tmp_path, *judged(served), "--server", server.format(url=served.url))
    command[command.index("--organism") + 1] = str(made / "other.yaml")
    capsys.readouterr()
    assert main(command) == 2
    error = capsys.readouterr().err.splitlines()
    assert message in error[-1]
    assert not list(tmp_path.glob("answers/*/answers.jsonl"))


def test_an_organism_whose_dose_is_still_to_be_chosen_is_refused(made, tmp_path, capsys):
    command = [
        "em-rate",
        "--organism",
        "microcosm/llama/neutral",
        "--runs",
        str(tmp_path),
        "--server",
        "http://localhost:1/v1",
    ]
    assert main(command) == 2
    assert "name the finished one in its YAML file" in capsys.readouterr().err
