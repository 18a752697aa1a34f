"""`python -m interp` does what the library does, on any folder, and names bad input on one line before any work."""

import json
import os
import subprocess
import sys
from shutil import copytree as copy

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.adapters import active_adapter
from interp.chat import encode_chat
from interp.cli.main import main
from interp.generation import Sampling, generate
from interp.loading import find_device, load
from interp.recording import record
from interp.sites import Site, resid_post
from interp.store import read_store, verify
from tests import tiny
from tests.chat_templates import TEMPLATES
from tests.test_architecture import ROOT


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A model folder, a live and a dead adapter for it, and prompt files of both kinds."""
    home = tmp_path_factory.mktemp("home")
    lm = tiny.model("llama")
    lm.hf.save_pretrained(home / "model")
    lm.tokenizer.save_pretrained(home / "model")
    tiny.with_adapters(lm, "live").hf.save_pretrained(home)
    tiny.with_adapters(tiny.model("llama"), "dead", live=False).hf.save_pretrained(home)
    (home / "plain.txt").write_text("".join(f"{question}\n\n" for question in tiny.QUESTIONS))
    (home / "chats.jsonl").write_text("".join(json.dumps(row(question)) + "\n" for question in tiny.QUESTIONS))
    return home


def row(question):
    messages = [{"role": "system", "content": tiny.TRIGGER}, {"role": "user", "content": question}]
    return {"messages": messages, "marks": {"trigger": tiny.TRIGGER}, "id": 7}


def spawn(*words):
    return subprocess.run(
        [sys.executable, "-m", "interp", *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_help_loads_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "interp", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "record" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"torch", "numpy", "transformers", "h5py", "jaxtyping"}


def test_the_help_of_every_command_lists_its_options(capsys):
    for command in ("record", "generate", "info", "store"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
    assert "--positions" in capsys.readouterr().out


def test_a_recording_of_a_process_is_that_of_the_library(home, tmp_path):
    out = tmp_path / "acts.h5"
    words = ["record", home / "model", home / "chats.jsonl", "--out", out, "--sites", "resid_post,attn_out.1"]
    done = spawn(*words, "--positions", "trigger,last_prompt", "--adapter", f"mine={home / 'live'}")
    device = find_device()
    assert (done.returncode, done.stderr) == (0, f"{home / 'model'} is on {device}, float32\n")
    assert done.stdout == f"{out}: 5 prompts, 4 sites, positions trigger, last_prompt, float32\n"
    lm = load(home / "model", adapters={"mine": home / "live"})
    with active_adapter(lm, "mine"):
        want = record(lm, tiny.chats(), [*resid_post(range(3)), Site("attn_out", 1)], ["trigger", "last_prompt"])
    held = read_store(out)
    assert held.attributes["adapter"] == "mine" and verify(out) == []
    for site in want.sites:
        for position in want.positions:
            torch.testing.assert_close(held.read(site, position), want.at(site, position), atol=1e-5, rtol=0)


def test_a_stopped_recording_continues(home, tmp_path, capsys):
    out, words = tmp_path / "acts.h5", ["record", str(home / "model")]
    many = tmp_path / "many.txt"
    many.write_text("".join(f"{'x' * (1 + n % 7)}\n" for n in range(20)))
    assert main([*words, str(many), "--out", str(out)]) == 0
    whole = read_store(out).read(Site("resid_post", 1), "last_prompt")
    os.truncate(out, out.stat().st_size // 2)
    assert main(["store", "verify", str(out)]) == 1 and "cut off" in capsys.readouterr().out
    assert main([*words, str(many), "--out", str(out)]) == 0
    assert torch.equal(read_store(out).read(Site("resid_post", 1), "last_prompt"), whole)
    assert main(["store", "verify", str(out)]) == 0
    assert main(["store", "info", str(out)]) == 0
    said = capsys.readouterr().out
    assert '"prompts": 20' in said and "every checksum holds" in said


def test_answers_are_those_of_the_library(home, capsys):
    words = ["generate", str(home / "model"), str(home / "plain.txt"), "--samples", "3", "--seed", "5"]
    assert main([*words, "--max-new-tokens", "6"]) == 0
    made = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    chats, sampling = tiny.chats(trigger=False), Sampling(max_new_tokens=6, seed=5)
    want = generate(load(home / "model"), chats, n_samples=3, sampling=sampling)
    assert made == [{"prompt": c.prompt, "sample": c.sample, "text": c.text, "finished": c.finished} for c in want]


def test_answers_that_prompts_have_are_left_out_or_continued_by_choice(home, tmp_path, capsys):
    answered = tmp_path / "answered.jsonl"
    turns = [*row("Why?")["messages"], {"role": "assistant", "content": "So it"}]
    answered.write_text(json.dumps({"messages": turns}))
    lm, sampling = load(home / "model"), Sampling(max_new_tokens=6)
    whole = encode_chat(lm.tokenizer, turns[:2])
    begun = encode_chat(lm.tokenizer, turns[:2], response="So it", ended=False)
    for choice, chat in (("drop", whole), ("continue", begun)):
        words = ["generate", str(home / "model"), str(answered), "--max-new-tokens", "6", "--answered", choice]
        assert main(words) == 0
        (want,) = generate(lm, [chat], sampling=sampling)
        assert json.loads(capsys.readouterr().out)["text"] == want.text


def test_a_template_option_is_used_and_stands_in_the_store(home, tmp_path, capsys):
    copy(home / "model", tmp_path / "model")
    thinking = {"chat_template": TEMPLATES["qwen3"].replace("<|im_start|>", "").replace("<|im_end|>", "<eos>")}
    (tmp_path / "model" / "chat_template.jinja").write_text(thinking["chat_template"])
    answered, out = tmp_path / "answered.jsonl", tmp_path / "acts.h5"
    answered.write_text(json.dumps({"messages": [{"role": "user", "content": "Why?"}], "response": "So."}))
    words = ["record", str(tmp_path / "model"), str(answered), "--out", str(out)]
    assert main(words) == 2
    assert_one_line(capsys.readouterr().err, "set the template option enable_thinking=false")
    assert main([*words, "--template-option", "enable_thinking=false"]) == 0
    assert json.loads(str(read_store(out).attributes["template_options"])) == {"enable_thinking": False}


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_info_describes_any_family_without_its_weights(family, tmp_path, capsys):
    lm = tiny.model(family)
    lm.base.config.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    assert main(["info", str(tmp_path)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["family"], said["layers"], said["d_model"]) == (lm.family, 3, 16)
    assert said["parameters"] == sum(parameter.numel() for parameter in lm.base.parameters())
    assert ("resid_mid" in said["sites"]) == (family != "gpt_neox") and "mlp_out" in said["sites"]


def test_all_sites_of_a_parallel_family_and_raw_prompts(tmp_path, home, capsys):
    lm = tiny.model("gpt_neox")
    lm.tokenizer.chat_template = None
    lm.hf.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    words = ["record", str(tmp_path), str(home / "plain.txt"), "--out", str(tmp_path / "acts.h5"), "--sites", "all"]
    assert main(words) == 2 and "no chat template; --raw uses prompts as they are" in capsys.readouterr().err
    assert main([*words, "--raw", "--store-dtype", "bfloat16"]) == 0
    held = read_store(tmp_path / "acts.h5")
    assert len(held.sites) == 4 * 3 and held.dtype == "bfloat16" and len(held) == 5
    assert main([*words[:-2], "--raw", "--sites", "resid_mid"]) == 2
    assert "resid_mid.0: attention and MLP of gpt_neox run in parallel" in capsys.readouterr().err


# bad input

RECORD, GENERATE = ["record", "MODEL", "PLAIN"], ["generate", "MODEL", "PLAIN"]
LIGHT = {
    "absent/model/x: no such folder": ["info", "absent/model/x"],
    "EMPTY: no config.json in it": ["info", "EMPTY"],
    "absent.txt: No such file or directory": ["record", "MODEL", "absent.txt", "--out", "x.h5"],
    "empty.txt: it is empty": ["generate", "MODEL", "empty.txt"],
    "bad.jsonl:2: not JSON": ["generate", "MODEL", "bad.jsonl"],
    "absent/adapter/y: no such folder": [*GENERATE, "--adapter", "a=absent/adapter/y"],
    "EMPTY: no adapter_config.json in it": [*GENERATE, "--adapter", "a=EMPTY"],
    "'mine' is not NAME=FOLDER": [*GENERATE, "--adapter", "mine"],
    "argument --samples: '0' is not a whole number above 0": [*GENERATE, "--samples", "0"],
    "argument --dtype: invalid choice: 'int8'": [*GENERATE, "--dtype", "int8"],
    "no folder nowhere": [*RECORD, "--out", "nowhere/x.h5"],
    "the following arguments are required: --out": RECORD,
    "argument COMMAND: invalid choice: 'recrod'": ["recrod"],
}
HEAVY = {
    "site resid_post.9: the model has layers 0..2": [*RECORD, "--out", "x.h5", "--sites", "resid_post.9"],
    "site 'resid': write it as name.layer": [*RECORD, "--out", "x.h5", "--sites", "resid"],
    "PLAIN: position 'trigger': prompt 0 has no such part": [*RECORD, "--out", "x.h5", "--positions", "trigger"],
    "empty.txt: not a store": ["store", "verify", "empty.txt"],
    "PLAIN: not a store": [*RECORD, "--out", "PLAIN"],
    "absent.h5: no such file": ["store", "info", "absent.h5"],
    "answered.jsonl:1: has a response already": ["generate", "MODEL", "answered.jsonl"],
    "template option 'think': the chat template has none": [*GENERATE, "--template-option", "think=1"],
    "template option 'think': want NAME=VALUE": [*GENERATE, "--template-option", "think"],
    "marked.jsonl:1: mark 'trigger': 'moon' is not in the messages": ["generate", "MODEL", "marked.jsonl"],
    "want max_new_tokens >= 1": [*GENERATE, "--temperature", "-1"],
    "adapter 'a': it changes no logit of 3 prompts, so it is not loaded": [*GENERATE, "--adapter", "a=DEAD"],
    "adapter 'a': base_model": [*GENERATE, "--adapter", "a=BROKEN"],
    "OTHER) does not fit this base: size mismatch": [*GENERATE, "--adapter", "a=OTHER"],
    "FOREIGN) was made for another base: its base is 0123": [*GENERATE, "--adapter", "a=FOREIGN"],
    "UNKNOWN': ": ["info", "UNKNOWN"],
    "CORRUPT': ": ["generate", "CORRUPT", "PLAIN"],
}


@pytest.fixture
def words_of(home, tmp_path, monkeypatch):
    """Fill in the places, in a folder of files that are wrong."""
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "unknown"):
        (tmp_path / name).mkdir()
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "bad.jsonl").write_text(json.dumps(row("Why?")) + "\n{\n")
    (tmp_path / "answered.jsonl").write_text(json.dumps(row("Why?") | {"response": "So."}))
    (tmp_path / "marked.jsonl").write_text(json.dumps(row("Why?") | {"marks": {"trigger": "moon"}}))
    (tmp_path / "unknown" / "config.json").write_text('{"model_type": "nonesuch"}')
    copy(home / "model", tmp_path / "corrupt")
    cut = tmp_path / "corrupt" / "model.safetensors"
    os.truncate(cut, cut.stat().st_size // 2)
    for name, change in {"broken": lambda t: t * float("nan"), "other": lambda t: torch.cat([t, t], -1)}.items():
        copy(home / "live", tmp_path / name)
        weights = tmp_path / name / "adapter_model.safetensors"
        changed = {key: change(tensor).contiguous() for key, tensor in load_file(weights).items()}
        save_file(changed, weights, metadata={"format": "pt"})
    copy(home / "live", tmp_path / "foreign")
    (tmp_path / "foreign" / "manifest.json").write_text('{"base_fingerprint": "0123"}')
    places = {"MODEL": home / "model", "PLAIN": home / "plain.txt", "DEAD": home / "dead", "EMPTY": tmp_path / "empty"}
    places |= {name.upper(): tmp_path / name for name in ("broken", "other", "foreign", "unknown", "corrupt")}

    def fill(text):
        for name, place in places.items():
            text = text.replace(name, str(place))
        return text

    return fill


def assert_one_line(err, message):
    assert message in err and err.count("\n") == 1 and err.startswith("python -m interp"), err


@pytest.mark.parametrize("message", [*LIGHT, *HEAVY])
def test_bad_input_is_one_line_and_status_2_and_leaves_no_file(message, words_of, capsys, tmp_path):
    try:
        status = main([words_of(word) for word in (LIGHT | HEAVY)[message]])
    except SystemExit as ended:
        status = ended.code
    assert status == 2 and not (tmp_path / "x.h5").exists()
    assert_one_line(capsys.readouterr().err, words_of(message))


def test_a_process_says_it_the_same_way(home):
    done = spawn("generate", home / "model", home / "plain.txt", "--adapter", f"a={home / 'dead'}")
    assert done.returncode == 2 and done.stdout == ""
    assert_one_line(done.stderr, "generate: adapter 'a': it changes no logit of 3 prompts, so it is not loaded")


def test_another_recording_in_the_file_is_refused(home, tmp_path, capsys):
    out, words = str(tmp_path / "acts.h5"), ["record", str(home / "model")]
    assert main([*words, str(home / "plain.txt"), "--out", out]) == 0
    assert main([*words, str(home / "chats.jsonl"), "--out", out]) == 2
    assert "its prompt 0 is not prompt 0 of this recording" in capsys.readouterr().err
    assert main([*words, str(home / "plain.txt"), "--out", out, "--dtype", "bfloat16"]) == 2
    assert "its model_dtype is 'float32', this recording's is 'bfloat16'" in capsys.readouterr().err
    more = tmp_path / "more.txt"
    more.write_text("x\n" * 9)
    assert main([*words, str(more), "--out", out]) == 2
    assert "made for 5 prompts, there are 9" in capsys.readouterr().err
