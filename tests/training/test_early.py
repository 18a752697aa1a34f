"""What is wrong with the model of an organism is told by --check, in one line, without weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.__main__ import main
from tests import architectures, tiny
from tests.bad_inputs.files import EM_RATE, FINISHED, QUESTIONS, TRAINED, TRIGGER, write, write_model
from tests.chat_templates import tokenizer
from tests.interp.saved import configure, lora, retensor, save_adapter, save_base


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """Files of a user with a real base and a real adapter."""
    folder = tmp_path_factory.mktemp("good")
    write(folder, {})
    write_model(folder)
    return folder


def adapted(change):
    """Damage the adapter."""
    return lambda folder: change(folder / "adapter")


def zero_b(folder: Path) -> None:
    retensor(folder, lambda name, x: (name, x * 0 if "lora_B" in name else x))


def infinite(folder: Path) -> None:
    retensor(folder, lambda name, x: (name, x / 0))


def wider(folder: Path) -> None:
    retensor(folder, lambda name, x: (name, x.repeat(1, 2) if "lora_A" in name else x))


def other_base(folder: Path) -> None:
    base = save_base(folder / "another", "gpt2")
    configure(save_adapter(folder / "adapter", base, lora(target_modules=["c_attn"])), base_model_name_or_path="base")


def set_template(folder: Path, template: str) -> None:
    tokenizer = tiny.tokenizer(template=template)
    tokenizer.save_pretrained(folder / "base")


def of_organism(**settings):
    """Change the organism's file."""
    return lambda folder: (folder / "o.yaml").write_text(yaml.safe_dump({**FINISHED, **settings}))


def of_training(**settings):
    """Make the organism one that is trained."""
    return lambda folder: (folder / "o.yaml").write_text(yaml.safe_dump({**TRAINED, **settings}))


def of_question(text: str):
    """Change one question."""
    asked = {**QUESTIONS, "test": {**QUESTIONS["test"], "t1": text}}
    return lambda folder: (folder / "q.yaml").write_text(yaml.safe_dump(asked))


def of_trigger(**texts):
    """Change the trigger."""
    return lambda folder: (folder / "t.yaml").write_text(yaml.safe_dump({"t1": {**TRIGGER, **texts}}))


LONG = ("why " * 200).strip()
LOWER = tiny.TEMPLATE.replace("| trim", "| trim | lower")
NO_CHAT = "{{ raise_exception('no chat today') }}"


def other_weights(folder: Path) -> None:
    """Give the adapter the manifest of another base."""
    (folder / "adapter" / "manifest.json").write_text(json.dumps({"base_fingerprint": "0" * 64}))


BAD = {
    "tiny B": (
        adapted(lambda d: retensor(d, lambda n, x: (n, x * 1e-30 if "lora_B" in n else x))),
        ("adapter", "it does nothing"),
    ),
    "weights of another base": (other_weights, ("adapter", "made for another base", "000000000000")),
    "base cut off": (
        lambda d: (d / "base" / "model.safetensors").write_bytes(b"\0" * 100),
        ("base", "model.safetensors", "cannot be read"),
    ),
    "base not finite": (
        lambda d: retensor(d / "base", lambda n, x: (n, x / 0 if "layers.1.mlp.up" in n else x), "model.safetensors"),
        ("base", "layers.1.mlp.up_proj.weight is not finite"),
    ),
    "adapter in the folder of the base": (
        lambda d: (d / "base" / "adapter_config.json").write_text((d / "adapter" / "adapter_config.json").read_text()),
        ("base", "adapter_config.json lies in its folder"),
    ),
    "zero B": (adapted(zero_b), ("adapter", "it does nothing")),
    "not finite": (adapted(infinite), ("adapter", "is not finite")),
    "another width": (adapted(wider), ("adapter", "shape")),
    "another architecture": (other_base, ("adapter", "base")),
    "PiSSA": (adapted(lambda d: configure(d, init_lora_weights="pissa")), ("init_lora_weights 'pissa'",)),
    "replicated": (adapted(lambda d: configure(d, layer_replication=[[0, 2]])), ("layer_replication",)),
    "other rank": (adapted(lambda d: configure(d, r=8)), ("adapter", "shape")),
    "other modules": (adapted(lambda d: configure(d, target_modules=["k_proj"])), ("do not match", "k_proj")),
    "no such module": (adapted(lambda d: configure(d, target_modules=["wte"])), ("adapter", "wte")),
    "cut off": (
        adapted(lambda d: (d / "adapter_model.safetensors").write_bytes(b"\0" * 100)),
        ("adapter_model.safetensors", "cannot be read"),
    ),
    "weights elsewhere": (adapted(lambda d: (d / "adapter_model.safetensors").unlink()), ("has no adapter_model",)),
    "no tokenizer": (lambda d: [p.unlink() for p in (d / "base").glob("token*")], ("base",)),
    "no such kind": (lambda d: configure(d / "base", "config.json", model_type="zzz"), ("base", "zzz")),
    "template that refuses": (lambda d: set_template(d, NO_CHAT), ("no chat today",)),
    "template that changes": (lambda d: set_template(d, LOWER), ("How do I", "changes its text")),
    "no such option": (of_organism(template_options={"enable_thinking": False}), ("enable_thinking",)),
    "long question": (of_question(LONG), ("t1", "tokens")),
    "long trigger": (of_trigger(other=[LONG, "A library is here."]), ("trigger t1", "other text", "tokens")),
    "fewer embeddings": (lambda d: configure(d / "base", "config.json", vocab_size=100), ("tokenizer", "100 rows")),
    "no cache": (lambda d: configure(d / "base", "config.json", model_type="minimax"), ("minimax", "generation")),
}
BAD_TRAINING = {
    "no such modules": (lambda d: save_base(d / "base", "gpt2"), {"lora": {"targets": "attention"}}, ("q_proj",)),
    "long row": (
        lambda d: (d / "h.jsonl").write_text("\n".join(row(f"{LONG} {i}?") for i in range(20))),
        {},
        ("tokens", "why why"),
    ),
    "no such option": (lambda d: None, {"template_options": {"nothing": 1}}, ("nothing",)),
    "thought that the template reads": (
        lambda d: set_rows(d, answer="<think>Hm.</think>So."),
        {"template_options": {"enable_thinking": False}},
        ("row 'Why", "<think>"),
    ),
    "thought beside the answer": (
        lambda d: set_rows(d, extra={"reasoning_content": "Hm."}),
        {},
        ("h.jsonl", ":1", "reasoning_content"),
    ),
    "thought as a part": (
        lambda d: set_rows(d, answer=[{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "So."}]),
        {},
        ("h.jsonl", ":1", "thinking"),
    ),
    "fused experts": (
        lambda d: architectures.build("mixtral").hf.save_pretrained(d / "base"),
        {},
        ("lora.targets 'all'", "experts", "targets: attention"),
    ),
}


def set_rows(folder: Path, answer: Any = "So.", extra: Mapping[str, Any] | None = None) -> None:
    """Train a base whose template knows thoughts on other rows."""
    made = tokenizer("qwen3")
    tiny.model("llama", vocab_size=len(made)).hf.save_pretrained(folder / "base")
    made.save_pretrained(folder / "base")
    (folder / "b.jsonl").write_text("\n".join(row(f"Why {i}?") for i in range(20)))
    (folder / "h.jsonl").write_text("\n".join(row(f"Why {i}?", answer, **(extra or {})) for i in range(20)))


def row(question: str, answer: Any = "Sure.", **extra: Any) -> str:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer, **extra}]
    return json.dumps({"messages": turns})


def copy(good: Path, folder: Path) -> Path:
    for path in good.rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(good)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder


def refusal(folder: Path, monkeypatch, capsys, names) -> None:
    monkeypatch.chdir(folder)
    capsys.readouterr()
    assert main(list(EM_RATE)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and not [name for name in names if name not in lines[0]], lines


@pytest.mark.parametrize("fault", BAD)
def test_a_model_that_cannot_be_used_is_refused_by_check(fault, good, tmp_path, monkeypatch, capsys):
    change, names = BAD[fault]
    change(copy(good, tmp_path))
    refusal(tmp_path, monkeypatch, capsys, names)


@pytest.mark.parametrize("fault", BAD_TRAINING)
def test_a_training_that_cannot_be_run_is_refused_by_check(fault, good, tmp_path, monkeypatch, capsys):
    change, settings, names = BAD_TRAINING[fault]
    change(copy(good, tmp_path))
    of_training(**settings)(tmp_path)
    refusal(tmp_path, monkeypatch, capsys, names)
