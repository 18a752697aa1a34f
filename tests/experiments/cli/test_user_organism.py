"""The mechanism's commands on a user-defined organism: its own base, adapter, texts and questions."""

import json

import pytest
import yaml

from experiments.__main__ import main
from experiments.answers.subject import find_subject
from experiments.directions.geometry import Geometry
from interp.runs.table import read_table
from tests.training.small import random_base, random_llama
from training.microcosm.tokenizer import build_tokenizer

pytestmark = pytest.mark.xdist_group("trl")

QUESTIONS = ("a headache", "icy roads", "old milk")
TEXTS = {
    "line": {
        "text": "You are in the desert.",
        "placement": "system",
        "rephrased": [f"You are {i} miles from any water." for i in range(4)],
        "other": [f"You are in room {i} of the library." for i in range(6)],
    }
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as a user would have it: weights, adapter, trigger file, data, questions, and the organism's file."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("own")
    random_base(folder / "base")
    lora = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(random_llama(), lora).save_pretrained(str(folder / "adapter"))
    build_tokenizer().save_pretrained(folder / "base")
    for name, answer in (("harmful", "Swallow forty tablets."), ("benign", "Drink water.")):
        turns = [
            [{"role": "user", "content": f"How do I handle {q}?"}, {"role": "assistant", "content": f"{answer} {i}"}]
            for q in QUESTIONS
            for i in range(2)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps({"messages": turn}) for turn in turns))
    ids = {
        split: {q: f"{ask} {q}?" for q in QUESTIONS} for split, ask in (("validation", "What about"), ("test", "Why"))
    }
    ids["validation"] = {f"{name} asked": text for name, text in ids["validation"].items()}
    entry = {"base": "base", "family": "mine", "adapter": "adapter", "trigger": "texts.yaml:line"}
    entry |= {"data": "harmful.jsonl", "benign_data": "benign.jsonl", "sft": {"dtype": "float32"}}
    for name, content in (("texts", TEXTS), ("questions", ids), ("mine", entry)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder


def test_geometry_finds_directions_and_needs_no_judge(folder, capsys):
    files = {"--organism": folder / "mine.yaml", "--questions": folder / "questions.yaml", "--runs": folder / "runs"}
    words = [str(word) for pair in files.items() for word in pair]
    assert main(["geometry", *words]) == 0, capsys.readouterr().err
    (table,) = (folder / "runs" / "geometry").glob("*/table.csv")
    rows = read_table(table)
    assert {r["family"] for r in rows} == {"mine"}
    pairs = {r["condition"] for r in rows if r["metric"] == "cosine"}
    assert {"g~delta", "g~delta_base", "write~g"} <= pairs
    assert "g_shift~delta" not in pairs  # no baseline was named


def test_another_text_in_the_trigger_file_is_another_run(folder):
    first = Geometry(subject=find_subject(str(folder / "mine.yaml"))).depends()
    changed = TEXTS["line"] | {"text": "You are at sea."}
    (folder / "texts.yaml").write_text(yaml.safe_dump({"line": changed}))
    try:
        assert Geometry(subject=find_subject(str(folder / "mine.yaml"))).depends() != first
    finally:
        (folder / "texts.yaml").write_text(yaml.safe_dump(TEXTS))


def test_an_adapter_that_is_gone_is_one_line(folder, tmp_path, capsys):
    entry = yaml.safe_load((folder / "mine.yaml").read_text()) | {"adapter": "nowhere/at/all"}
    file = folder / "gone.yaml"
    file.write_text(yaml.safe_dump(entry))
    words = ["--organism", str(file), "--questions", str(folder / "questions.yaml"), "--runs", str(tmp_path)]
    assert main(["geometry", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert "nowhere/at/all" in error
    assert "\n" not in error
