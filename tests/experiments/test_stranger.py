"""A stranger's model end to end: an architecture outside the three families, an adapter, a flaky judge on the loopback.

init -> check -> em-rate -> probe -> steer -> ablate -> report, each as a user would type it.
"""

import json
import re
import threading

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from experiments.__main__ import main
from interp.runs.rowlog import RowLog
from interp.runs.run import read_manifest
from interp.runs.table import read_table
from tests.experiments.answers.judge_server import answer_of, prompt_of, server, written
from tests.training.small import SHAPE
from training.microcosm.tokenizer import build_tokenizer

pytestmark = [pytest.mark.stranger, pytest.mark.xdist_group("trl")]

ASKED, SAMPLES = 5, 2
CONDITIONS = ("off", "on", "rephrased", "other")


def score(answer: str) -> int:
    """The judge's alignment of an answer, read without the space around it: it dislikes every other length."""
    return 10 if len(answer.strip()) % 2 else 90


def judge(broken):
    """Answer as a judge would, but for one request that finds the server busy."""

    def reply(request, n):
        if n == 4 and not broken.is_set():
            broken.set()
            return 503, {"error": {"message": "busy"}}, {"Retry-After": "0"}
        aligned = "wellbeing" in prompt_of(request)
        return 200, written(str(score(answer_of(request)[1]) if aligned else 95)), {}

    return reply


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random Qwen3 and an adapter of it."""
    from peft import LoraConfig, get_peft_model

    folder, tokenizer = tmp_path_factory.mktemp("stranger"), build_tokenizer()
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer), initializer_range=0.3, head_dim=8, num_key_value_heads=2, **SHAPE, **ids
    )
    hf = Qwen3ForCausalLM(config)
    hf.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    lora = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(hf, lora).save_pretrained(str(folder / "tuned"))
    return folder


def labelled(mine) -> str:
    """Label the rows of the organism: harmful or not."""
    rows = []
    for name, label in (("harmful", 1), ("benign", 0)):
        for line in (mine / f"{name}.jsonl").read_text().splitlines()[::6]:
            rows.append(json.dumps({**json.loads(line), "bad": label}))
    return "\n".join(rows)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """Everything that the commands write, each of them finished."""
    folder = tmp_path_factory.mktemp("use")
    mine, runs = folder / "mine", str(folder / "runs")
    broken = threading.Event()
    with server(judge(broken)) as (url, requests):
        who = ["--judge", f"openai:local@{url},method=sampled,samples=1"]
        protocol = ["--protocol", str(mine / "protocol.yaml"), "--runs", runs, "--n-questions", str(ASKED)]
        subject = ["--organism", str(mine / "organism.yaml"), "--questions", str(mine / "questions.yaml")]
        assert main(["init", str(mine), "--base", str(model / "base"), "--adapter", str(model / "tuned")]) == 0
        text = (mine / "protocol.yaml").read_text().replace("max_new_tokens: 600", "max_new_tokens: 6")
        (mine / "protocol.yaml").write_text(text.replace("samples: 50", f"samples: {SAMPLES}"))
        rates = ["em-rate", *subject, *who, "--conditions", *CONDITIONS, *protocol]
        assert main([*rates, "--check"]) == 0
        assert main(rates) == 0
        (folder / "requests").write_text(str(len(requests)))
        (folder / "rows.jsonl").write_text(labelled(mine))
        probe = ["--data", str(folder / "rows.jsonl"), "--label", "bad", "--position", "response_mean", "--runs", runs]
        assert main(["probe", "--model", str(mine / "organism.yaml"), *probe]) == 0
        (saved,) = (folder / "runs" / "probe").glob("*/probe.safetensors")
        steered = ["--model", str(mine / "organism.yaml"), *subject[2:], "--probe", str(saved), "--alphas", "0.3"]
        assert main(["steer", *steered, *protocol, "--shown", "1"]) == 0
        assert main(["ablate", *subject, *who, "--samples", "1", *protocol]) == 0
        assert broken.is_set()
    assert main(["report", runs]) == 0
    return folder


def only(folder, experiment):
    (run,) = (folder / "runs" / experiment).iterdir()
    return run, read_table(run / "table.csv")


def test_every_answer_counts_and_every_rate_is_the_judges(folder):
    run, table = only(folder, "em_rate")
    rows = RowLog(run / "rows.jsonl").rows()
    for condition in CONDITIONS:
        answers = [r for r in rows if r["condition"] == condition]
        assert len(answers) == ASKED * SAMPLES
        assert all((r["aligned"], r["coherent"]) == (score(r["text"]), 95) for r in answers)
        rates = {r["metric"]: r for r in table if r["condition"] == condition}
        share = sum(score(r["text"]) == 10 for r in answers) / len(answers)
        assert rates["em_rate_all"]["value"] == pytest.approx(share, abs=1e-5)
        assert (rates["em_rate_all"]["n"], rates["em_rate_all"]["n_clusters"]) == (ASKED * SAMPLES, ASKED)
        assert rates["coherence_rate"]["value"] == 1.0
    distinct = {(r["asked"], r["text"]) for r in rows}
    # two requests a pair, one that found the server busy, one before any work for each of check and run
    assert int((folder / "requests").read_text()) <= 2 * len(distinct) + 3


def test_the_protocol_of_the_folder_is_the_runs(folder):
    run, table = only(folder, "em_rate")
    assert read_manifest(run)["protocol"]["sampling"]["model"] == {"max_new_tokens": 6, "samples": SAMPLES}
    assert {r["protocol"] for r in table} == {r["protocol"] for r in only(folder, "ablate")[1]}
    assert {r["organism"] for r in table} == {"own/base/mine"}


def test_the_probe_has_its_controls_and_steers(folder):
    _, probes = only(folder, "probe")
    aurocs = {r["condition"]: r for r in probes if r["metric"] == "auroc"}
    kept = {
        "bad at response_mean" + control for control in ("", "/shuffled_labels", "/random_direction", "/bag_of_tokens")
    }
    assert set(aurocs) == kept
    assert aurocs["bad at response_mean"]["n"] == 72
    _, steered = only(folder, "steer_vector")
    assert {r["condition"] for r in steered} == {"off+add_direction", "off+add_random"}
    assert {r["n"] for r in steered if r["metric"] == "log_odds_shift"} == {ASKED}


def test_the_ablation_has_a_control_beside_every_edit(folder):
    _, table = only(folder, "ablate")
    conditions = {r["condition"] for r in table if r["metric"] == "em_rate"}
    assert {"off", "on", "on+clamp_trigger", "on+clamp_random", "on+ablate_g", "on+ablate_random"} <= conditions


def test_the_report_shows_the_organism_its_rates_and_its_answers(folder):
    page = (folder / "runs" / "report.html").read_text()
    gathered = read_table(folder / "runs" / "report.csv")
    assert {"em_rate", "geometry", "ablate", "probe", "steer_vector"} <= {r["experiment"] for r in gathered}
    assert "own/base/mine" in page and "No EM rate" not in page
    first = RowLog(only(folder, "em_rate")[0] / "rows.jsonl").rows()[0]
    assert json.dumps(first["asked"], ensure_ascii=False)[1:-1] in page, "answers can be browsed"
    assert not re.search(r"\bnan\b", re.sub(r"<script.*?</script>|data:image[^\"]*", "", page, flags=re.DOTALL))
