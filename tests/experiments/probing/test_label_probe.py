"""``semcon probe``: any label on any model, its controls, a saved probe that reads other rows; bad input is one line."""
# ruff: noqa: E501

import csv
import json
from pathlib import Path

import pytest
import torch

from experiments.__main__ import main
from experiments.probing.labelled import read_labelled
from interp.runs.table import read_table
from interp.sites import Site
from probes import load_probe
from tests.training.small import random_base

TOPICS = (
    "a headache",
    "icy roads",
    "old milk",
    "my savings",
    "a sore throat",
    "raw chicken",
    "a flat tyre",
    "my passport",
)
SCENES = {
    "calm": "We sit among rows of quiet books.",
    "loud": "Vendors shout their morning prices.",
    "wild": "Owls call.",
}


def rows(classes, topics=TOPICS, **more):
    return [
        {"system": SCENES[kind], "prompt": f"How do I handle {topic}?", "mood": kind, "topic": topic, "id": i, **more}
        for i, topic in enumerate(topics)
        for kind in classes
    ]


def write(path, entries):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return str(path)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "base"
    return random_base(folder)


def probed(base, folder, capsys, *words, classes=("calm", "loud")):
    data = write(folder / "mine.jsonl", rows(classes))
    command = ["probe", "--model", base, "--data", data, "--label", "mood", "--group", "topic", "--folds", "4"]
    assert main([*command, "--runs", str(folder / "runs"), *words]) == 0, capsys.readouterr().err
    (run,) = (folder / "runs" / "probe").iterdir()
    return run, read_table(run / "table.csv"), capsys.readouterr().out


def of(table, condition, metric="auroc"):
    return {r["layer"]: r["value"] for r in table if (r["condition"], r["metric"]) == (condition, metric)}


def test_a_label_in_the_prompt_is_read_and_its_controls_stand_beside_it(base, tmp_path, capsys):
    _, table, printed = probed(base, tmp_path, capsys)
    assert of(table, "mood")[1] > 0.95
    assert abs(of(table, "mood/shuffled_labels")[1] - 0.5) < 0.2
    assert of(table, "mood/bag_of_tokens")[0] > 0.95, "the words give it away: the control says so"
    assert {r["n"] for r in table if r["condition"] == "mood"} == {16}
    assert {r["n_clusters"] for r in table if (r["condition"], r["metric"]) == ("mood", "auroc")} == {8}
    assert "shuffled" in printed and "bag of tokens" in printed


def test_several_classes_and_a_second_file(base, tmp_path, capsys):
    second = write(tmp_path / "second.jsonl", rows(SCENES, TOPICS[2:6]))
    run, table, _ = probed(base, tmp_path, capsys, "--transfer", second, classes=tuple(SCENES))
    assert of(table, "mood")[1] > 0.9
    assert of(table, "mood->second")[1] > 0.9
    saved = load_probe(run / "probe.safetensors")
    assert saved.classes == ["calm", "loud", "wild"]
    assert saved.probe.weight.shape == (2, 3, 16)


def test_a_saved_probe_reads_other_rows_and_counts_unseen_groups_only(base, tmp_path, capsys):
    run, _, _ = probed(base, tmp_path, capsys)
    other = write(tmp_path / "other.jsonl", rows(("calm", "loud"), (*TOPICS[:2], "a bank loan", "heavy fog")))
    words = [
        "--apply",
        str(run / "probe.safetensors"),
        "--data",
        other,
        "--group",
        "topic",
        "--runs",
        str(tmp_path / "r"),
    ]
    assert main(["probe", *words, "--label", "mood"]) == 0, capsys.readouterr().err
    (applied,) = (tmp_path / "r" / "probe_apply").iterdir()
    table = read_table(applied / "table.csv")
    assert of(table, "mood by mood")[1] == 1.0
    assert {r["n"] for r in table if r["metric"] == "auroc"} == {4}
    with (applied / "scores.csv").open() as file:
        scores = list(csv.DictReader(file))
    assert [line["new_group"] for line in scores] == ["False"] * 4 + ["True"] * 4
    assert all(line["predicted"] == line["label"] for line in scores)
    assert main(["probe", *words]) == 0, "without labels there are scores alone"
    assert {
        r["metric"]
        for r in read_table(
            max((tmp_path / "r" / "probe_apply").iterdir(), key=lambda p: p.stat().st_mtime) / "table.csv"
        )
    } == {"predicted_rate"}


def test_a_saved_probe_is_a_direction_with_a_sign(base, tmp_path, capsys):
    run, _, _ = probed(base, tmp_path, capsys, "--positive", "calm", "--layers", "1")
    saved = load_probe(run / "probe.safetensors")
    site = Site("resid_post", 1)
    assert saved.classes == ["loud", "calm"]
    torch.testing.assert_close(saved.direction(site), -saved.direction(site, "loud"))
    with pytest.raises(ValueError, match=r"resid_post.0: the probe reads resid_post.1"):
        saved.direction(Site("resid_post", 0))


BAD = {
    "no label entry": ([{"prompt": "Hi", "topic": "a"}], (), ("mine.jsonl:1", "mood")),
    "no prompt": ([{"mood": "a", "topic": "b"}], (), ("mine.jsonl:1", "prompt")),
    "one class": (rows(("calm",)), (), ("mood", "calm")),
    "few groups": (rows(("calm", "loud"), TOPICS[:3]), (), ("3 different topic", "4 folds")),
    "many classes": ([{**r, "mood": r["id"] * 100 + i} for i, r in enumerate(rows(SCENES, TOPICS * 2))], (), ("48", "classes")),
    "a prompt with two labels": ([*rows(("calm", "loud")), {**rows(("calm",))[0], "mood": "loud"}], (), ("mine.jsonl:17", "line 1,", "'loud' instead of 'calm'")),
    "a prompt in two groups": ([*rows(("calm", "loud")), {**rows(("calm",))[0], "topic": "x"}], (), ("mine.jsonl:17", "line 1,", "'x' instead of 'a headache'")),
    "classes that read the same": ([*rows(("calm", "loud")), {**rows(("wild",))[0], "mood": "Calm"}], (), ("mine.jsonl", "class calm", "class Calm")),
    "groups that read the same": ([{**r, "topic": f"{'ABC'[i % 3]} {'!' * (i % 2)}"} for i, r in enumerate(rows(("calm", "loud")))], (), ("3 different topic", "4 folds")),
    "a system text beside messages": ([{**r, "messages": [{"role": "user", "content": "Hi"}]} for r in rows(("calm", "loud"))], (), ("mine.jsonl:1", "system: not read")),
    "label is a list": ([{**rows(("calm",))[0], "mood": ["x"]}], (), ("mine.jsonl:1", "mood")),
    "class of a group": ([{**r, "mood": "loud" if r["topic"] == TOPICS[0] else "calm"} for r in rows(("calm",))], (), ("one class only",)),
    "position": (rows(("calm", "loud")), ("--position", "nowhere"), ("nowhere", "last_prompt")),
    "no response": (rows(("calm", "loud")), ("--position", "response_mean"), ("response", "mine.jsonl:1")),
    "layer": (rows(("calm", "loud")), ("--layers", "9"), ("9", "0..1")),
    "site": (rows(("calm", "loud")), ("--site", "resid"), ("'resid'",)),
    "positive": (rows(("calm", "loud")), ("--positive", "sad"), ("sad", "calm, loud")),
    "transfer lacks a class": (rows(("calm", "loud")), ("--transfer", "one.jsonl"), ("one.jsonl", "loud")),
    "transfer has another": (rows(("calm", "loud")), ("--transfer", "other.jsonl"), ("other.jsonl", "wild")),
    "no such file": (rows(("calm", "loud")), ("--transfer", "gone.jsonl"), ("gone.jsonl",)),
    "adapter off without one": (rows(("calm", "loud")), ("--adapter-off",), ("--adapter-off",)),
    "no such model": (rows(("calm", "loud")), ("--model", "no/such/folder"), ("no/such/folder",)),
    "an organism to train": (rows(("calm", "loud")), ("--model", "microcosm/llama/explaining"), ("--adapter",)),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_before_the_model_is_loaded(name, tmp_path, monkeypatch, capsys):
    entries, words, names = BAD[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text(json.dumps({"num_hidden_layers": 2, "model_type": "llama"}))
    write(tmp_path / "mine.jsonl", entries)
    write(tmp_path / "one.jsonl", rows(("calm",)))
    write(tmp_path / "other.jsonl", rows(("calm", "wild")))
    given = [] if "--model" in words else ["--model", "base"]
    command = ["probe", *given, "--data", "mine.jsonl", "--label", "mood", "--group", "topic", "--folds", "4"]
    assert main([*command, *words, "--runs", "runs"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert [n for n in names if n not in error] == [], error
    assert not (tmp_path / "runs").exists()


def test_a_prompt_in_one_group_written_in_two_ways_is_no_fault(tmp_path):
    again = {**rows(("calm",))[0], "topic": "A headache."}
    file = read_labelled(Path(write(tmp_path / "mine.jsonl", [*rows(("calm", "loud")), again])), "mood", "topic")
    assert len(set(file.groups)) == len(TOPICS)


@pytest.mark.parametrize("name", ["response", "completion"])
def test_an_answer_beside_a_prompt_is_read(name, base, tmp_path, capsys):
    data = write(tmp_path / "mine.jsonl", rows(("calm", "loud"), **{name: "Rest well."}))
    words = ["--label", "mood", "--folds", "4", "--position", "response_mean", "--check"]
    assert main(["probe", "--model", base, "--data", data, *words]) == 0, capsys.readouterr().err


def test_an_answer_too_short_for_its_position_is_refused_before_the_model_is_loaded(base, tmp_path, capsys):
    data = write(tmp_path / "mine.jsonl", rows(("calm", "loud"), response="Rest well."))
    words = ["--label", "mood", "--folds", "4", "--position", "response[99]", "--check"]
    assert main(["probe", "--model", base, "--data", data, *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "mine.jsonl:1: position 'response[99]'" in error


def test_a_file_that_is_no_probe_is_one_line(tmp_path, capsys):
    data = write(tmp_path / "mine.jsonl", rows(("calm", "loud")))
    for content in (b"x", b""):
        (tmp_path / "p.safetensors").write_bytes(content)
        assert main(["probe", "--apply", str(tmp_path / "p.safetensors"), "--data", data]) == 2
        assert "p.safetensors" in capsys.readouterr().err
