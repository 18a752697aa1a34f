"""One door for a model: files that do not fit each other are refused in one line that names the base."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaForSequenceClassification

from interp.chat import encode_chat
from interp.decoding.stopping import stop_ids
from interp.loading import DEVICE, find_device, load, load_tokenizer, outline, place
from interp.recording import record
from interp.sites import resid_post
from tests import tiny
from tests.interp.saved import configure, retensor, save_base
from training.microcosm.world import WEIGHTS

MODEL = "model.safetensors"


def at(**settings: Any) -> Callable[[Path], None]:
    """Change the config of a base."""
    return lambda base: configure(base, "config.json", **settings)


def without(end: str) -> Callable[[Path], None]:
    """Drop the tensors with this ending."""
    return lambda base: retensor(base, lambda n, x: None if n.endswith(end) else (n, x), MODEL)


def poison(base: Path) -> None:
    """Make one weight infinite."""
    retensor(
        base, lambda n, x: (n, x.index_fill(0, torch.tensor([0]), float("inf")) if "1.mlp.down" in n else x), MODEL
    )


def cut(base: Path) -> None:
    """Cut the weights in half."""
    (base / MODEL).write_bytes((base / MODEL).read_bytes()[: (base / MODEL).stat().st_size // 2])


def classify(base: Path) -> None:
    """Put a classifier in place of the language model."""
    LlamaForSequenceClassification(tiny.model("llama").hf.config).save_pretrained(base)


def tied_classifier(base: Path) -> None:
    """Put a classifier with a tied vocabulary head in place of the language model, so that no tensor lacks."""
    config = tiny.model("llama", tie_word_embeddings=True).hf.config
    LlamaForSequenceClassification(config).save_pretrained(base)


def generation(text: str) -> Callable[[Path], object]:
    """Write the generation config of a base."""
    return lambda base: (base / "generation_config.json").write_text(text)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a missing tensor": (without("1.mlp.down_proj.weight"), r"lack 1 tensors .*layers\.1\.mlp\.down_proj\.weight"),
    "fewer layers in the config": (at(num_hidden_layers=2), r"9 tensors more than its config, .*layers\.2"),
    "more layers in the config": (at(num_hidden_layers=4), "lack 9 tensors"),
    "another width in the config": (at(intermediate_size=64), "has shape .*its config asks for"),
    "a weight that is not finite": (poison, r"layers\.1\.mlp\.down_proj\.weight is not finite in torch.float32"),
    "weights cut off": (cut, "base '"),
    "no weights": (lambda base: (base / MODEL).unlink(), "base|no file"),
    "pickled weights": (lambda base: (base / MODEL).rename(base / "pytorch_model.bin"), "safetensors"),
    "a classifier": (classify, r"lack 1 tensors of the model, such as lm_head\.weight"),
    "a classifier with a tied head": (tied_classifier, "is a LlamaForSequenceClassification, which is no language"),
    "a stop that is a text": (generation('{"eos_token_id": "</s>"}'), "eos_token_id '</s>' .*: expected a token id"),
    "a stop in a list that is a text": (generation('{"eos_token_id": [2, "x"]}'), "eos_token_id 'x'"),
    "stops in stops": (generation('{"eos_token_id": [[2]]}'), r"eos_token_id \[2\]"),
    "a damaged generation config": (generation("{"), "generation_config.json: not JSON"),
    "an unknown model": (at(model_type="qwen9"), "qwen9"),
    "code in the repository": (at(auto_map={"AutoModelForCausalLM": "m.M"}, model_type="mine"), "base|mine"),
    "damaged config": (lambda base: (base / "config.json").write_text("{"), "config.json|not a valid JSON"),
    "no tokenizer": (lambda base: [path.unlink() for path in base.glob("token*")], "base|tokenizer"),
    "the tokenizer of a larger model": (at(vocab_size=200), "has shape|its tokenizer has 262 tokens"),
    "bitsandbytes": (
        at(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        r"base '.*': its weights are quantised \(bitsandbytes\), and cannot be loaded here: ",
    ),
    "GPTQ": (at(quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 32}), r"quantised \(gptq\)"),
    "AWQ": (at(quantization_config={"quant_method": "awq", "bits": 4, "group_size": 32}), r"quantised \(awq\)"),
    "an unknown quantisation": (at(quantization_config={"quant_method": "q9"}), r"quantised \(q9\)"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A base on disk."""
    return save_base(tmp_path_factory.mktemp("whole") / "llama")


@pytest.fixture
def base(tmp_path, whole) -> Path:
    """A copy of the base."""
    return Path(shutil.copytree(whole, tmp_path / "llama"))


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_base_is_refused_in_one_line(base, fault):
    change, message = BROKEN[fault]
    change(base)
    with pytest.raises(ValueError, match=message) as caught:
        load(base)
    assert str(base) in str(caught.value) and "\n" not in str(caught.value)
    if "generation" in message or "eos_token_id" in message or "is a Llama" in message:
        with pytest.raises(ValueError, match=message):
            outline(str(base))


def test_a_model_without_weights_stops_where_the_loaded_one_does(base):
    generation('{"eos_token_id": [2, 40]}')(base)
    assert stop_ids(outline(str(base))) == stop_ids(load(base)) >= {2, 40}


def test_a_config_that_asks_for_tuples_is_no_fault(base):
    configure(base, "config.json", return_dict=False)
    chat = encode_chat(tiny.tokenizer(), [{"role": "user", "content": "Hi"}])
    assert record(load(base), [chat], resid_post([1]), ["last_prompt"]).values.isfinite().all()


def test_a_tokenizer_of_another_model_is_refused_without_weights(base):
    configure(base, "config.json", vocab_size=200)
    with pytest.raises(ValueError, match="its tokenizer has 262 tokens, its embedding 200 rows"):
        outline(str(base))


@pytest.mark.parametrize("declared", ["TokenizersBackend", "PreTrainedTokenizerFast"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3"])
def test_a_folder_that_asks_for_the_generic_tokenizer_gets_it_in_every_family(tmp_path, family, declared):
    base = save_base(tmp_path / family, family)
    configure(base, "tokenizer_config.json", tokenizer_class=declared)
    text = "It's 12 o'clock; what should I do with 345 plants?"
    expected = tiny.tokenizer()(text)["input_ids"]
    for tokenizer in (load_tokenizer(str(base)), load(base).tokenizer, outline(str(base)).tokenizer):
        assert tokenizer(text)["input_ids"] == expected


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3"])
def test_the_shipped_tokenizers_are_the_same_through_every_door(family):
    base, text = str(WEIGHTS / family), "how do i handle icy roads"
    assert outline(base).tokenizer(text)["input_ids"] == load(base).tokenizer(text)["input_ids"]


def test_a_tokenizer_of_a_class_of_its_own_stays_as_transformers_loads_it(tmp_path):
    base = save_base(tmp_path / "llama")
    configure(base, "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    assert type(load_tokenizer(str(base))) is type(AutoTokenizer.from_pretrained(base))


def test_the_device_comes_from_the_call_or_the_environment_or_the_machine(base, monkeypatch):
    monkeypatch.setenv(DEVICE, "cpu")
    assert find_device() == torch.device("cpu")
    lm = load(base, dtype="bfloat16")
    assert place(lm) == "cpu, bfloat16"
    for wrong in ("gpu", "cuda:99", "meta"):
        monkeypatch.setenv(DEVICE, wrong)
        with pytest.raises(ValueError, match=f"device '{wrong}': .*this machine has cpu"):
            load(base)
        assert load(base, device="cpu").device.type == "cpu"
    monkeypatch.delenv(DEVICE)
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    assert find_device() == (accelerator or torch.device("cpu"))


def test_a_base_that_is_spread_over_what_there_is_has_equal_logits(tmp_path, monkeypatch):
    saved = tiny.model("llama")
    saved.hf.save_pretrained(tmp_path)
    saved.tokenizer.save_pretrained(tmp_path)
    chat = tiny.chats(count=1)[0]
    ids = torch.tensor([chat.token_ids])
    expected = load(tmp_path).hf(input_ids=ids).logits
    monkeypatch.setenv(DEVICE, "auto")
    assert find_device() == (torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu"))
    spread = load(tmp_path)
    assert torch.equal(spread.hf(input_ids=ids.to(spread.device)).logits.cpu(), expected)
