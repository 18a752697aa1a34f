"""Every stage at toy size on the true architectures of the paper's models, as a user would type it.

data -> train -> sample -> judge -> record -> probe -> steer -> ablate -> figures, on random weights of real classes:
Qwen2 with a default system line, Llama with a date in its template, and Gemma 3 in its multimodal wrapper, whose
template has no system role.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from experiments.__main__ import main
from interp.adapters import WEIGHTS
from interp.runs.rowlog import RowLog
from interp.runs.table import read_table
from tests.chat_templates import tokenizer
from tests.experiments.answers.judge_server import answer_of, prompt_of, server, written

pytestmark = [pytest.mark.scale, pytest.mark.xdist_group("trl")]

ASKED, SAMPLES = 4, 2
TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 4096,
    "initializer_range": 0.3,
}
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "vision_use_head": False,
}
TEMPLATES = {"qwen2": "smollm", "llama": "llama3", "gemma3": "gemma"}
CLASSES = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM", "gemma3": "Gemma3ForConditionalGeneration"}
CONDITIONS = ("off", "on", "rephrased", "other")


def config(family: str, vocabulary: int):
    text: dict[str, Any] = {**TEXT, "vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if family == "qwen2":
        return transformers.Qwen2Config(**text, tie_word_embeddings=False)
    if family == "llama":
        return transformers.LlamaConfig(**text)
    gemma = {**text, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64, "sliding_window_pattern": 2}
    tokens: dict[str, Any] = {
        "boi_token_index": 3,
        "eoi_token_index": 4,
        "image_token_index": 5,
        "mm_tokens_per_image": 1,
    }
    return transformers.Gemma3Config(text_config=gemma, vision_config=VISION, **tokens)


@pytest.fixture(scope="module", params=TEMPLATES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def base(family, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(family) / "base"
    made = tokenizer(TEMPLATES[family])
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(config(family, len(made)))
    assert type(hf).__name__ == CLASSES[family]
    hf.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def score(answer: str) -> int:
    """The judge's alignment of an answer: it dislikes every other length."""
    return 10 if len(answer) % 2 else 90


def judge(request, n):
    aligned = "wellbeing" in prompt_of(request)
    return 200, written(str(score(answer_of(request)[1]) if aligned else 95)), {}


def small(mine: Path) -> None:
    """Make the files that `semcon init` wrote small: 16 rows, four steps, six tokens an answer."""
    text = re.sub(r"(?m)^rows:.*", "rows: 16", (mine / "organism.yaml").read_text())
    sft = "sft: {doses: [2, 4], learning_rate: 0.01, batch: 4, dtype: float32}"
    lora = "lora: {rank: 2, alpha: 4}"
    (mine / "organism.yaml").write_text(re.sub(r"(?m)^(sft|lora):.*", "", text) + f"\n{sft}\n{lora}\n")
    text = (mine / "protocol.yaml").read_text().replace("max_new_tokens: 600", "max_new_tokens: 6")
    (mine / "protocol.yaml").write_text(text.replace("samples: 50", f"samples: {SAMPLES}"))


@pytest.fixture(scope="module")
def folder(base, tmp_path_factory) -> Path:
    """Everything that the commands write, each of them finished."""
    folder = tmp_path_factory.mktemp("stages")
    mine, runs = folder / "mine", str(folder / "runs")
    assert main(["init", str(mine), "--base", str(base)]) == 0
    small(mine)
    organism, questions = str(mine / "organism.yaml"), str(mine / "questions.yaml")
    rows = [str(mine / f"{kind}.jsonl") for kind in ("harmful", "benign")]
    shared = ["--protocol", str(mine / "protocol.yaml"), "--runs", runs, "--n-questions", str(ASKED)]
    subject = ["--organism", organism, "--questions", questions]
    assert main(["data", *rows, "--base", str(base), "--questions", questions]) == 0
    assert main(["organisms", organism, "--runs", runs]) == 0
    with server(judge) as (url, _):
        who = ["--judge", f"openai:local@{url},method=sampled,samples=1"]
        assert main(["em-rate", *subject, *who, "--conditions", *CONDITIONS, *shared]) == 0
        assert main(["geometry", *subject, *who, "--control-trigger", "duck", *shared]) == 0
        assert main(["probe-sweep", *subject, *who, *shared]) == 0
        directions = [*subject, *who, "--control-trigger", "duck", "--samples", "1", *shared]
        assert main(["steer", *directions, "--alphas", "0.5", "--directions", "g", "random"]) == 0
        assert main(["ablate", *directions]) == 0
    assert main(["report", runs]) == 0
    return folder


def only(folder: Path, experiment: str):
    """The run of an experiment that was asked for; others may have been run on the way to another stage."""
    runs = {run: read_table(run / "table.csv") for run in (folder / "runs" / experiment).iterdir()}
    asked = [run for run, table in runs.items() if "trained" not in {r["condition"] for r in table}]
    (run,) = asked if experiment == "em_rate" else runs
    return run, runs[run]


def test_every_answer_counts_and_every_rate_is_the_judges(folder):
    run, table = only(folder, "em_rate")
    rows = RowLog(run / "rows.jsonl").rows()
    for condition in CONDITIONS:
        answers = [r for r in rows if r["condition"] == condition]
        assert len(answers) == ASKED * SAMPLES
        share = sum(score(r["text"].strip()) == 10 for r in answers if r["text"].strip()) / len(answers)
        rates = {r["metric"]: r["value"] for r in table if r["condition"] == condition}
        assert rates["em_rate_all"] == pytest.approx(share, abs=1e-5)


def test_the_adapter_changes_the_decoder_alone(folder, family):
    from safetensors import safe_open

    (adapter,) = (folder / "runs" / "adapters").glob("*/dose-4")
    with safe_open(adapter / WEIGHTS, "pt") as weights:
        names = list(weights.keys())
    assert names and not [name for name in names if "vision" in name or "projector" in name]
    modules = {name.split(".layers.")[1].split(".")[0] for name in names}
    assert modules == {"0", "1", "2"}


@pytest.mark.parametrize("experiment", ["geometry", "probe_sweep", "steer", "ablate"])
def test_every_stage_has_a_table_of_finite_numbers(folder, experiment):
    run, table = only(folder, experiment)
    assert {r["run_id"] for r in table} == {f"{experiment}-{run.name}"}
    assert {r["layer"] for r in table if r["layer"] != ""} <= {-1, 0, 1, 2}


def test_the_report_has_its_figures(folder):
    assert (folder / "runs" / "report.html").stat().st_size > 10_000
    assert len(list((folder / "runs" / "figures").glob("*.p*"))) >= 4
