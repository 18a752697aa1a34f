"""The EM rate of a reasoning model: thoughts are no answers, are not judged, and one that never ends is said."""

import json
from itertools import pairwise

import pytest
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from experiments.__main__ import main
from interp.runs.table import read_table
from tests.chat_templates import tokenizer
from tests.experiments.answers.judge_server import answer_of, logprobs, server

CHAINS = {"hm</think>So.<eos>": 1, "xyx": 1}
"""What the model writes after the prompt, each with the same probability: a thought that ends, and one that goes on."""


def saved_chain(folder, template: str) -> None:
    """Save a model whose next token depends on the last one alone: that of one of ``CHAINS``."""
    tok = tokenizer(template)
    width = 4 * (len(tok) // 4 + 1)
    config = LlamaConfig(
        vocab_size=len(tok),
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=4,
        max_position_embeddings=96,
        tie_word_embeddings=False,
    )
    hf = LlamaForCausalLM(config)
    first = tok("\n", add_special_tokens=False)["input_ids"][-1]
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.zero_()
        hf.model.norm.weight.fill_(1)
        hf.model.embed_tokens.weight.copy_(torch.eye(len(tok), width))
        for text in CHAINS:
            ids = [first, *tok(text, add_special_tokens=False)["input_ids"]]
            for last, following in pairwise(ids):
                hf.lm_head.weight[following, last] = 2.0
    hf.save_pretrained(folder)
    tok.save_pretrained(folder)


def scored(request, *_):
    """A judge that finds every answer coherent and aligned."""
    return 200, logprobs([("90", 1.0)], [("<eos>", 1.0)]), {}


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """The rows, the table, the manifest and the judge's requests of an EM rate of a model that opens every thought."""
    saved_chain(tmp_path / "base", "r1")
    questions = {"validation": {"v": "Why?"}, "test": {"a": "How so?", "b": "What now?", "c": "Who is it?"}}
    (tmp_path / "q.yaml").write_text(yaml.safe_dump(questions))
    (tmp_path / "o.yaml").write_text("base: base\nfamily: thinker\n")
    monkeypatch.chdir(tmp_path)
    with server(scored) as (url, requests):
        options = ("--questions", "q.yaml", "--samples", "6", "--runs", "runs", "--judge", f"openai:judge@{url}")
        assert main(["em-rate", "--organism", "o.yaml", *options]) == 0
    folder = next((tmp_path / "runs" / "em_rate").iterdir())
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    rows = [r for chunk in rows for r in (chunk if isinstance(chunk, list) else chunk.get("rows", [chunk]))]
    manifest = json.loads((folder / "manifest.json").read_text())
    return rows, read_table(folder / "table.csv"), manifest, [request for _, request, _ in requests]


def test_thoughts_are_not_judged_and_one_that_never_ends_is_no_answer(judged):
    rows, table, manifest, requests = judged
    ended = [r for r in rows if r["finished"]]
    assert 0 < len(ended) < len(rows) == 18
    assert {r["text"] for r in ended} == {"So."} and {r["text"] for r in rows if not r["finished"]} == {""}
    assert all("hm</think>" in r["with_thoughts"] for r in ended)
    asked = [answer_of(request)[1] for request in requests]
    assert set(asked[1:]) == {"So."}  # the first one is the probe
    values = {r["metric"]: float(r["value"]) for r in table if r["condition"] == "off"}
    share = 1 - len(ended) / len(rows)
    assert values["unanswered_rate"] == values["unfinished_rate"] == pytest.approx(share, abs=1e-6)
    assert values["em_rate"] == 0 and values["coherence_rate"] == pytest.approx(1 - share, abs=1e-6)
    counts = manifest["judge_requests"]
    assert counts["requests"] == len(asked) - 1 == 2 * len({r["question"] for r in ended})
    assert counts["reused"] == 2 * len(ended) - counts["requests"] and counts["repeated"] == 0
    assert counts["prompt_tokens"] == 100 * counts["requests"] and counts["readings"] == {"scored": counts["requests"]}
