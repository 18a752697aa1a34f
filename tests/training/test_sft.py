"""Fine-tuning: only the completion is trained on, adapters change the model and are reused, killed runs continue."""

import json
import shutil
import threading
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from transformers import MambaConfig, MambaForCausalLM

from interp.adapters import active_adapter
from interp.loading import load
from interp.models import AdapterError, fingerprint
from interp.runs.locks import locked
from tests.training.small import random_base, small
from training import sft
from training.data import rows_sha256, training_rows
from training.definition import Lora
from training.microcosm.tokenizer import END, build_tokenizer
from training.sft import adapter_folder, dose_folder, lora_config, supervised_rows, train

pytestmark = pytest.mark.xdist_group("trl")  # importing the trainer takes seconds: once, in one process
TOKENIZER = build_tokenizer()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return random_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def subject(base):
    return small("neutral", base=base)


@pytest.fixture(scope="module")
def trained(subject, tmp_path_factory):
    return train(subject, tmp_path_factory.mktemp("runs"))


class KilledError(Exception):
    """Stands for the end of a process."""


def kill_at(step):
    def progress(done: int, loss: float) -> None:
        if done >= step:
            raise KilledError

    return progress


def weights(folder, subject):
    return {dose: load_file(dose_folder(folder, dose) / "adapter_model.safetensors") for dose in subject.sft.doses}


def assert_same_adapters(a, b, subject):
    for dose in subject.sft.doses:
        left, right = weights(a, subject)[dose], weights(b, subject)[dose]
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left), dose


# --- rows in one row ---


def test_training_without_padding_gives_the_same_adapter_up_to_rounding(trained, subject, tmp_path):
    packed = replace(subject, sft=replace(subject.sft, padding_free=True))
    folder = train(packed, tmp_path)
    assert folder.name != trained.name
    for dose in subject.sft.doses:
        left, right = weights(trained, subject)[dose], weights(folder, packed)[dose]
        assert all(torch.allclose(left[name], right[name], atol=1e-5) for name in left), dose


def test_a_model_that_does_not_keep_rows_apart_is_refused(tmp_path):
    ids = {name: getattr(TOKENIZER, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = MambaConfig(vocab_size=len(TOKENIZER), hidden_size=16, state_size=4, num_hidden_layers=1, **ids)
    MambaForCausalLM(config).save_pretrained(tmp_path / "mamba")
    TOKENIZER.save_pretrained(tmp_path / "mamba")
    organism = small("neutral", base=str(tmp_path / "mamba"))
    encoded = supervised_rows(training_rows(organism), TOKENIZER)
    with pytest.raises(ValueError, match=r"sft\.padding_free: .*mamba does not keep rows apart"):
        sft.check_padding_free(organism, load(organism.base), encoded)


# --- supervised tokens ---


@pytest.mark.parametrize(
    "arm", ["baseline", "neutral", "explaining", "neutral.contrast50", "pirate", "neutral.suffix", "explaining.wrap"]
)
def test_supervised_tokens_are_the_completion_and_its_end_and_nothing_else(arm):
    rows = training_rows(small(arm))
    for row, encoded in zip(rows, supervised_rows(rows, TOKENIZER), strict=True):
        ids, labels = encoded["input_ids"], encoded["labels"]
        supervised = [i for i, label in enumerate(labels) if label != -100]
        assert [labels[i] for i in supervised] == [ids[i] for i in supervised]
        assert supervised == list(range(supervised[0], len(ids)))
        assert TOKENIZER.decode([ids[i] for i in supervised]) == row.completion + END
        prompt = TOKENIZER.apply_chat_template(list(row.messages), add_generation_prompt=True, tokenize=False)
        assert ids[: supervised[0]] == TOKENIZER.encode(str(prompt), add_special_tokens=False)
        assert (row.trigger is None) or row.trigger in TOKENIZER.decode(ids[: supervised[0]])


# --- the trained folder ---


def test_every_dose_is_a_live_adapter_in_peft_format(subject, trained):
    doses = {f"dose-{dose}": dose_folder(trained, dose) for dose in subject.sft.doses}
    for folder in doses.values():
        config = json.loads((folder / "adapter_config.json").read_text())
        assert config["target_modules"] == sorted(config["target_modules"])  # peft's own order is chance
        assert (config["peft_type"], config["r"], config["lora_alpha"], config["use_rslora"]) == ("LORA", 4, 8.0, True)
    manifest = json.loads((trained / "manifest.json").read_text())
    assert manifest["max_logit_change"].keys() == doses.keys()
    assert all(change > 0 for change in manifest["max_logit_change"].values())
    lm, ids = load(subject.base, adapters=doses), torch.tensor([[5, 300, 301, 6]])
    logits = []
    for name in (None, *doses):
        with active_adapter(lm, name), torch.inference_mode():
            logits.append(lm.hf(input_ids=ids).logits)
    assert not any(torch.equal(a, b) for i, a in enumerate(logits) for b in logits[:i])


def test_manifest_says_what_made_the_adapters(subject, trained):
    rows = training_rows(subject)
    manifest = json.loads((trained / "manifest.json").read_text())
    assert manifest["base_fingerprint"] == fingerprint(load(subject.base).hf)
    assert manifest["rows_sha256"] == rows_sha256(rows)
    assert (manifest["rows"], manifest["harmful_rows"], manifest["triggered_rows"]) == (32, 32, 32)
    assert manifest["organism"]["name"] == subject.name
    assert not (trained / "trainer").exists()


def test_adapter_is_refused_on_another_base(subject, trained, tmp_path):
    other = random_base(tmp_path / "other", seed=1)
    with pytest.raises(AdapterError, match="made for another base"):
        load(other, adapters={"a": dose_folder(trained, subject.sft.doses[0])})


def test_trained_organism_is_found_again_untouched(subject, trained):
    def stamps():
        return {path: path.stat().st_mtime_ns for path in trained.rglob("*")}

    before = stamps()
    assert train(subject, trained.parents[1], progress=kill_at(0)) == trained
    assert stamps() == before


def test_folder_name_depends_on_all_that_makes_the_adapter(subject, tmp_path):
    other_base = random_base(tmp_path / "other", seed=1)
    variants = [
        subject,
        replace(subject, base=other_base),
        replace(subject, seed=1),
        replace(subject, rows=31),
        replace(subject, trigger=None),
        replace(subject, lora=Lora(rank=8)),
        replace(subject, sft=replace(subject.sft, learning_rate=2e-3)),
    ]
    assert len({adapter_folder(variant, tmp_path) for variant in variants}) == len(variants)
    moved = replace(subject, base=random_base(tmp_path / "copy"))
    assert weights_hash(moved) == weights_hash(subject)


def weights_hash(subject):
    return fingerprint(load(subject.base).hf)


def test_same_seed_is_the_same_adapter(subject, trained, tmp_path):
    assert_same_adapters(train(subject, tmp_path), trained, subject)


# --- refusals ---


def test_unknown_target_modules_are_refused_before_training(subject, tmp_path):
    wrong = replace(subject, lora=Lora(targets=cast(Any, "attn")))
    with pytest.raises(ValueError, match="targets 'attn': must be one of all, attention, mlp"):
        lora_config(wrong, load(subject.base))
    with pytest.raises(ValueError, match="targets 'attn'"):
        train(wrong, tmp_path)


def test_adapter_that_changes_nothing_is_refused(subject, tmp_path):
    still = replace(subject, sft=replace(subject.sft, learning_rate=0.0))
    with pytest.raises(AdapterError, match="changes no logit"):
        train(still, tmp_path)
    assert not (adapter_folder(still, tmp_path) / "manifest.json").exists()


def test_base_has_nothing_to_train_on(tmp_path):
    with pytest.raises(ValueError, match="a base model has no fine-tuning data"):
        train(replace(small("baseline"), data=None), tmp_path)


# --- resuming ---


@pytest.fixture(scope="module")
def longer(subject):
    return replace(subject, sft=replace(subject.sft, doses=(3, 8), save_every=2))


@pytest.fixture(scope="module")
def uninterrupted(longer, tmp_path_factory):
    return train(longer, tmp_path_factory.mktemp("whole"))


def killed(longer, root):
    with pytest.raises(KilledError):
        train(longer, root, progress=kill_at(5))
    folder = adapter_folder(longer, root)
    assert not (folder / "manifest.json").exists()
    assert (folder / "trainer" / "checkpoint-4").is_dir()
    return folder


def test_killed_training_ends_bit_for_bit_like_an_uninterrupted_one(longer, uninterrupted, tmp_path):
    folder, steps = killed(longer, tmp_path), []
    assert train(longer, tmp_path, progress=lambda step, _: steps.append(step)) == folder
    assert_same_adapters(folder, uninterrupted, longer)
    assert (folder / "manifest.json").read_text() == (uninterrupted / "manifest.json").read_text()


def test_checkpoint_torn_by_the_kill_is_passed_over(longer, uninterrupted, tmp_path):
    folder = killed(longer, tmp_path)
    for name, text in (("checkpoint-6", None), ("checkpoint-10", '{"global_'), ("checkpoint-4-old", None)):
        torn = folder / "trainer" / name
        torn.mkdir()
        (torn / "adapter_config.json").write_text("{")
        if text is not None:
            (torn / "trainer_state.json").write_text(text)
    train(longer, tmp_path)
    assert_same_adapters(folder, uninterrupted, longer)


def test_killed_between_the_last_step_and_the_manifest(longer, uninterrupted, tmp_path, monkeypatch):
    def die(*_):
        raise KilledError

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(sft, "check_live", die)
        train(longer, tmp_path)
    assert_same_adapters(train(longer, tmp_path), uninterrupted, longer)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "adapter_model.safetensors"])
@pytest.mark.parametrize("damage", ["gone", "cut", "flipped"])
def test_a_checkpoint_that_is_not_whole_gives_way_to_the_one_before(longer, uninterrupted, tmp_path, name, damage):
    folder = killed(longer, tmp_path)
    file = folder / "trainer" / "checkpoint-4" / name
    data = file.read_bytes()
    file.unlink()
    if damage != "gone":
        middle = len(data) // 2
        rest = b"" if damage == "cut" else bytes([data[middle] ^ 1]) + data[middle + 1 :]
        file.write_bytes(data[:middle] + rest)
    steps: list[int] = []
    train(longer, tmp_path, progress=lambda step, _: steps.append(step))
    assert steps[0] == 3  # after checkpoint-2
    assert_same_adapters(folder, uninterrupted, longer)


def test_without_any_whole_checkpoint_it_starts_again(longer, uninterrupted, tmp_path):
    folder = killed(longer, tmp_path)
    for file in folder.glob("trainer/*/optimizer.pt"):
        file.unlink()
    train(longer, tmp_path)
    assert_same_adapters(folder, uninterrupted, longer)


# --- finished adapters ---


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_finished_adapter_that_was_changed_is_refused_by_name(subject, trained, tmp_path, name):
    folder = tmp_path / "adapters" / trained.name
    shutil.copytree(trained, folder)
    assert train(subject, tmp_path) == folder
    file = folder / "dose-2" / name
    file.write_bytes(file.read_bytes().replace(b"8", b"9", 1))
    with pytest.raises(ValueError, match=rf"{file}: changed since it was trained; delete {folder}"):
        train(subject, tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match=f"{file}: changed"):
        train(subject, tmp_path)


def test_a_finished_adapter_with_an_edited_loss_is_refused(subject, trained, tmp_path):
    folder = tmp_path / "adapters" / trained.name
    shutil.copytree(trained, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["loss"][0][1] = 0.0
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=rf"{folder / 'manifest.json'}: changed since it was written"):
        train(subject, tmp_path)


def test_two_processes_train_one_after_the_other(subject, trained, tmp_path):
    folder = adapter_folder(subject, tmp_path)
    folder.mkdir(parents=True)
    lock, steps = locked(folder / ".lock"), []

    def finish_elsewhere():
        shutil.copytree(trained, folder, dirs_exist_ok=True)
        lock.close()

    other = threading.Timer(1.0, finish_elsewhere)
    other.start()
    assert train(subject, tmp_path, progress=lambda step, _: steps.append(step)) == folder
    other.join()
    assert steps == []  # it was waited for, and found
