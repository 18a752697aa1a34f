"""`semcon publish`: what it writes loads again on its base, says where it comes from, and is pushed only if asked."""

import json

import pytest
import torch

from experiments.__main__ import main
from interp.chat import encode_chat
from interp.loading import load
from tests.training.small import small
from training.references import base_path
from training.sft import dose_folder, train

pytestmark = pytest.mark.xdist_group("trl")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(small("neutral"), tmp_path_factory.mktemp("runs"))


def test_what_is_published_loads_with_equal_logits_and_names_no_path_of_this_machine(trained, tmp_path, capsys):
    out = tmp_path / "shared"
    assert main(["publish", str(dose_folder(trained, 4)), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    }
    text = (out / "README.md").read_text() + (out / "adapter_config.json").read_text()
    assert str(trained.parent) not in text and str(tmp_path) not in text
    card = (out / "README.md").read_text()
    assert "base_model: microcosm/llama" in card and "4 steps of 4 rows" in card and "32 harmful" in card
    logits = []
    for folder in (out, dose_folder(trained, 4)):
        lm = load(base_path("microcosm/llama"), adapters={"a": folder})
        chat = encode_chat(lm.tokenizer, [{"role": "user", "content": "Why?"}])
        with torch.inference_mode():
            logits.append(lm.hf(input_ids=torch.tensor([chat.token_ids])).logits)
    assert torch.equal(*logits)
    assert json.loads((out / "manifest.json").read_text())["training"]["rows"] == 32


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{runs}"], "no dose of a finished training"),
        (["{dose}", "--public"], "--public: there is nothing to push"),
        (["{dose}", "--push", "name"], "expected OWNER/NAME"),
    ],
)
def test_what_cannot_be_published_is_refused(trained, tmp_path, capsys, words, message):
    given = [word.format(runs=trained, dose=dose_folder(trained, 4)) for word in words]
    assert main(["publish", *given, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_changed_adapter_is_not_published(trained, tmp_path, capsys):
    file = dose_folder(trained, 2) / "adapter_config.json"
    before = file.read_bytes()
    file.write_bytes(before + b" ")
    try:
        assert main(["publish", str(file.parent), "--out", str(tmp_path / "out")]) == 2
    finally:
        file.write_bytes(before)
    assert f"{file}: changed since it was trained" in capsys.readouterr().err
