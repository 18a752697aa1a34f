"""``semcon steer --model``: any direction on any model, beside a random one of its norm; bad input is one line."""
# ruff: noqa: E501

import json

import pytest
import torch
from safetensors.torch import save_file

from experiments.__main__ import main
from experiments.removal.steer_vector import side_by_side
from interp.directions import load_directions
from interp.loading import load
from interp.runs.table import read_table
from tests.training.small import random_base

QUESTIONS = {
    split: {
        topic: {"question": f"{ask} {topic}?", "aligned": "Drink water.", "harmful": "Eat it all."} for topic in topics
    }
    for split, ask, topics in (
        ("validation", "What about", ("icy roads", "old milk")),
        ("test", "How do I handle", ("a headache", "my savings", "heavy fog")),
    )
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steered")
    random_base(folder / "base")
    (folder / "q.yaml").write_text(json.dumps(QUESTIONS))
    (folder / "loud.txt").write_text("Vendors shout their morning prices.\nShoppers haggle over carpets.\n")
    (folder / "calm.txt").write_text("Owls call from hollow trunks.\nReaders whisper under brass lamps.\n")
    save_file({"d": torch.eye(16)[3], "matrix": torch.eye(16)}, folder / "d.safetensors")
    return folder


@pytest.fixture(scope="module")
def run(folder):
    words = ["--model", str(folder / "base"), "--questions", str(folder / "q.yaml"), "--runs", str(folder / "runs")]
    words += ["--positive", str(folder / "loud.txt"), "--negative", str(folder / "calm.txt"), "--layer", "1"]
    assert (
        main(["steer", *words, "--alphas", "0.5", "2", "--controls", "2", "--shown", "1", "--shown-tokens", "5"]) == 0
    )
    (run,) = (folder / "runs" / "steer_vector").iterdir()
    return run


def test_every_dose_has_its_control_and_its_cost_and_no_dose_is_no_change(run):
    table = read_table(run / "table.csv")
    by = {(r["metric"], r["condition"], r["alpha"]): r for r in table}
    names = ("off+add_direction", "off+add_random", "off+add_random_2")
    assert {r["condition"] for r in table} == {*names}
    for name in names:
        assert by["log_odds_shift", name, 0.0]["value"] == pytest.approx(0, abs=1e-6)
        for alpha in (0.5, 2.0):
            assert by["log_odds_shift", name, alpha]["n"] == 3
            assert by["benign_loss", name, alpha]["value"] != 0
    assert by["log_odds_shift", names[0], 2.0]["value"] != by["log_odds_shift", names[1], 2.0]["value"]


def test_the_direction_is_the_difference_of_the_two_sides_means(run, folder):
    from interp.chat import encode_chat
    from interp.recording import record
    from interp.sites import Site

    lm, site = load(folder / "base"), Site("resid_post", 1)
    means = [
        record(
            lm,
            [
                encode_chat(lm.tokenizer, [{"role": "user", "content": line}])
                for line in (folder / name).read_text().splitlines()
            ],
            [site],
            ["last_prompt"],
        )
        .at(site, "last_prompt")
        .mean(0)
        for name in ("loud.txt", "calm.txt")
    ]
    direction = load_directions(run / "direction.safetensors")["direction"]
    torch.testing.assert_close(direction.vector, means[0] - means[1])
    assert (direction.n_positive, direction.n_negative, direction.site) == (2, 2, site)


def test_answers_stand_side_by_side(run):
    page = (run / "answers.md").read_text()
    assert page.count("\n## ") == 1
    assert [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| direction")] == [
        [" direction ", f" {alpha} "] for alpha in ("0", "0.5", "2")
    ]
    hostile = [{"added": "direction", "alpha": 0.0, "asked": "a|b\n<b>", "answer": ""}]
    assert "a\\|b &lt;b>" in side_by_side(hostile) and "(nothing)" in side_by_side(hostile)


def test_its_parts_are_parts_of_the_run():
    from experiments.model import Model
    from experiments.removal.vector import Source
    from experiments.spec import Part
    from training.finished import finished_organism

    assert isinstance(Source(), Part), "else neither its files are hashed nor is it checked"
    assert isinstance(Model(finished_organism("microcosm/llama", None)), Part)


PROVENANCE = {"site": "resid_post.1", "method": "m", "positive": "p", "negative": "n", "n_positive": 1, "n_negative": 1}
BAD = {
    "no source": ([], ("--positive", "--probe", "--direction")),
    "one side": (["--positive", "loud.txt"], ("--negative",)),
    "two sources": (["--positive", "loud.txt", "--negative", "calm.txt", "--direction", "d.safetensors"], ("one direction",)),
    "the same side twice": (["--positive", "loud.txt", "--negative", "loud.txt"], ("loud.txt",)),
    "the same prompts": (["--positive", "loud.txt", "--negative", "again.txt"], ("again.txt", "loud.txt")),
    "no answers to read": (["--positive", "loud.txt", "--negative", "calm.txt", "--read", "response_mean"], ("loud.txt:1", "response")),
    "no such position": (["--positive", "loud.txt", "--negative", "calm.txt", "--read", "moon"], ("'moon'", "loud.txt:1")),
    "too long a prompt": (["--positive", "loud.txt", "--negative", "long.txt", "--check"], ("long.txt:2", "positions")),
    "class without a probe": (["--positive", "loud.txt", "--negative", "calm.txt", "--class", "x"], ("--class x", "--probe")),
    "name without a file": (["--positive", "loud.txt", "--negative", "calm.txt", "--direction-name", "x"], ("--direction-name x",)),
    "no dose": (["--direction", "d.safetensors", "--layer", "1", "--alphas"], ("alphas",)),
    "provenance": (["--direction", "other.safetensors"], ("other.safetensors", "d.positive")),
    "a site that there is not": (["--direction", "nowhere.safetensors"], ("nowhere.safetensors", "moon.1")),
    "not a number": (["--direction", "nan.safetensors", "--layer", "1"], ("nan.safetensors", "norm is nan")),
    "gone": (["--positive", "gone.txt", "--negative", "calm.txt"], ("gone.txt",)),
    "no layer in the file": (["--direction", "d.safetensors"], ("d.safetensors", "--layer")),
    "no such name": (["--direction", "d.safetensors", "--layer", "1", "--direction-name", "x"], ("'x'", "d")),
    "no directions": (["--direction", "loud.txt"], ("loud.txt",)),
    "no probe": (["--probe", "d.safetensors"], ("d.safetensors",)),
    "layer": (["--positive", "loud.txt", "--negative", "calm.txt", "--layer", "7"], ("7", "0..1")),
    "width": (["--direction", "wide.safetensors", "--layer", "1"], ("wide.safetensors", "width 8", "16")),
    "zero": (["--direction", "zero.safetensors", "--layer", "1"], ("zero.safetensors", "norm is 0")),
    "site": (["--direction", "d.safetensors", "--layer", "1", "--site", "resid"], ("resid",)),
    "positions": (["--direction", "d.safetensors", "--layer", "1", "--positions", "moon"], ("moon",)),
    "controls": (["--direction", "d.safetensors", "--layer", "1", "--controls", "0"], ("controls",)),
    "no references": (["--direction", "d.safetensors", "--layer", "1", "--questions", "plain.yaml"], ("--judge", "plain.yaml")),
    "benign without an answer": (["--direction", "d.safetensors", "--layer", "1", "--benign", "loud.txt"], ("loud.txt:1",)),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_before_the_model_is_loaded(name, folder, tmp_path, monkeypatch, capsys):
    words, names = BAD[name]
    for file in ("q.yaml", "loud.txt", "calm.txt", "d.safetensors"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    save_file({"d": torch.ones(8)}, tmp_path / "wide.safetensors")
    save_file({"d": torch.zeros(16)}, tmp_path / "zero.safetensors")
    save_file({"d": torch.full((16,), float("nan"))}, tmp_path / "nan.safetensors")
    for file, about in {"other": {"site": "resid_post.1"}, "nowhere": {**PROVENANCE, "site": "moon.1"}}.items():
        save_file({"d": torch.ones(16)}, tmp_path / f"{file}.safetensors", {"directions": json.dumps({"d": about})})
    (tmp_path / "again.txt").write_text((folder / "loud.txt").read_text() * 2)
    (tmp_path / "long.txt").write_text("Owls call.\n" + "Owls call. " * 9000)
    (tmp_path / "plain.yaml").write_text(json.dumps({"validation": {"a": "What?"}, "test": {"b": "Why?"}}))
    monkeypatch.chdir(tmp_path)
    questions = [] if "--questions" in words else ["--questions", "q.yaml"]
    assert main(["steer", "--model", str(folder / "base"), *questions, *words, "--runs", "runs"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert [n for n in names if n not in error] == [], error
    assert not (tmp_path / "runs").exists()
