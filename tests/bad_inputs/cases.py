"""Bad inputs by kind of file: each is another fault."""
# ruff: noqa: E501

import gzip
import json
from collections.abc import Iterator
from typing import Any

import yaml

from tests.bad_inputs.files import (
    ADAPTER,
    BASE,
    BENIGN,
    EM_RATE,
    FINISHED,
    HARMFUL,
    QUESTIONS,
    SCORES,
    TRAINED,
    TRIGGER,
    Case,
    changed,
    chat,
)

NOT_YAML: dict[str, bytes] = {
    "empty": b"",
    "comment": b"# nothing\n",
    "list": b"- a\n",
    "scalar": b"5\n",
    "open bracket": b"a: [1\n",
    "latin-1": b"base: caf\xe9\n",
    "utf-16": "base: x".encode("utf-16"),
    "NUL": b"base: a\0b\n",
    "repeated key": b"base: base\nbase: base\n",
    "repeated nested key": b"base: {a: 1, a: 2}\n",
    "python tag": b'!!python/object/apply:os.system ["true"]\n',
    "binary tag": b"base: !!binary aGk=\n",
    "bomb": b"a: &a [x,x]\n" + b"".join(b"%c: &%c [*%c,*%c]\n" % (98 + i, 98 + i, 97 + i, 97 + i) for i in range(9)),
    "recursive": b"&a\nbase: *a\n",
    "deep": b"[" * 4000,
    "two documents": b"base: x\n---\nbase: y\n",
    "tab": b"base:\n\tx: 1\n",
    "list as key": b"? [a]\n: b\n",
    "null as key": b"null: x\n",
    "true as key": b"true: x\n",
    "surrogate": b'base: "\\ud800"\n',
    "nan": b"base: .nan\n",
    "huge int": b"base: " + b"9" * 5000 + b"\n",
    "huge float": b"base: 1e999\n",
}
NUMBERS: tuple[Any, ...] = ("x", None, [1], {"a": 1}, True)
ORGANISM: dict[str, tuple[Any, ...]] = {
    "lora/rank": (*NUMBERS, -1, 0, 10**9, 2.5),
    "lora/alpha": ("x", None, [1], 0, -3.0),
    "lora/targets": ("unknown", ["q_proj"], None, 5),
    "lora/rslora": ("yes", 1, None),
    "lora/foo": (1,),
    "lora": ([1], None, "big", 4),
    "sft/doses": ([4, 2], [], [-2, 4], [0], [2, 2], 4, ["2"], [1.5], None, [[2]], [10**12]),
    "sft/learning_rate": (*NUMBERS, 0, -1, 1e30),
    "sft/batch": (0, -1, 1.5, "x"),
    "sft/accumulation": (0, -1, "x"),
    "sft/schedule": ("zigzag", 5, None),
    "sft/optimizer": ("sgdx", ["sgd"], None),
    "sft/dtype": ("float99", 3, None),
    "sft/save_every": (0, "x"),
    "sft/warmup": (-5, 1.5),
    "sft/coherence_floor": (2, -0.1, "a"),
    "sft/weight_decay": (-1, 2, "z"),
    "sft/dose": (3,),
    "sft": ("fast", [1], None),
    "rows": ("x", [1], {"a": 1}, True, 0, -4, 1.5),
    "benign_share": (2, -0.1, "half", 1.0, [0.5]),
    "seed": (-1, 2**32, 2**70, "x", 1.5, [0]),
    "wordings": ("wild", 5),
    "data": ("missing.jsonl", 5, "microcosm:nothing", "microcosm:", "pocket:nothing", "", " ", ["a"], "base"),
    "benign_data": ("missing.jsonl", ["a"], "h.jsonl", {"a": 1}),
    "trigger": ("t.yaml:nope", 5, "missing.yaml:t1", "", "microcosm:scene:nowhere", "microcosm:role:x", "duck@moon"),
    "base": (..., None, 5, "/nowhere/at/all", "microcosm/none", "microcosm/llama@x", "microcosm/llama@7", "", "a/b/c"),
    "family": ("a/b", "../x", ["a"], "a\nb", "", "a|b", 5, "x" * 300),
    "adapter": ("nowhere/at/all", 5, ["a"], ""),
    "zzz": (1,),
    "name": ("x",),
}


def _organisms() -> Iterator[Case]:
    words = tuple(word.replace("o.yaml", "train.yaml") for word in EM_RATE)
    for name, raw in NOT_YAML.items():
        yield Case(f"organism {name}", ("o.yaml",), files={"o.yaml": raw})
    for place, values in ORGANISM.items():
        for value in values:
            settings = yaml.safe_dump(changed(TRAINED, place, value))
            yield Case(f"{place} {value!r:.30}", ("train.yaml", place.split("/")[-1]), words, {"train.yaml": settings})
    for n in (41, 100):
        text = yaml.safe_dump(changed(TRAINED, "rows", n))
        yield Case(f"rows {n}", (f"rows {n}", "h.jsonl"), words, {"train.yaml": text})
    both = {"seed": -1, "rows": 0, "zzz": 1}
    several = Case("three faults", ("seed", "rows", "zzz"), words, {"train.yaml": yaml.safe_dump({**TRAINED, **both})})
    without = changed(changed(TRAINED, "benign_data", ...), "data", "h.jsonl")
    yield several
    yield Case("share without benign data", ("benign_share",), words, {"train.yaml": yaml.safe_dump(without)})
    lone = yaml.safe_dump(changed(changed(TRAINED, "data", ...), "benign_share", 0.0))
    yield Case("benign data alone", ("benign_data", "data"), words, {"train.yaml": lone})
    text = {**TRAINED, "trigger": "You are a pirate.", "wordings": "diverse"}
    yield Case("diverse text", ("wordings", "rephrased: ["), words, {"train.yaml": yaml.safe_dump(text)})
    pirate = {"o.yaml": yaml.safe_dump({**FINISHED, "trigger": "You are a pirate."})}
    geometry = ("geometry", *EM_RATE[1:])
    yield Case("a text where rephrasings are needed", ("rephrased", "FILE.yaml:NAME"), geometry, {**pirate})
    yield Case("a line break in a name", ("no ne.yaml",), ("em-rate", "--organism", "no\nne.yaml", "--check"))
    yield Case("no such organism file", ("none.yaml",), ("em-rate", "--organism", "none.yaml", "--check"))
    yield Case(
        "organism is a folder", ("dir.yaml",), ("em-rate", "--organism", "dir.yaml", "--check"), {"dir.yaml/x": ""}
    )


def _models() -> Iterator[Case]:
    config = "adapter/adapter_config.json"
    for name, raw in {
        "missing": None, "empty": b"", "brace": b"{", "list": b"[]", "latin-1": b'{"peft_type": "\xe9"}',
        "nan": b'{"r": NaN}', "twice": b'{"r": 1, "r": 2}', "deep": b"[" * 9000,
    }.items():  # fmt: skip
        yield Case(f"adapter config {name}", (config,), files={config: raw})
        base = "base/config.json"
        yield Case(f"base config {name}", (base,), files={base: raw, "base/x": ""})
    for place, values in {"r": ("x", -1, 0, 2.5, [4]), "peft_type": (..., 5, ""), "lora_alpha": (0, "x", -1)}.items():
        for value in values:
            text = json.dumps(changed(ADAPTER, place, value))
            yield Case(f"adapter {place} {value!r}", (config, place), files={config: text})
    alphas = json.dumps({**ADAPTER, "alpha_pattern": {"q_proj": 0}})
    yield Case("adapter alpha pattern", (config, "alpha_pattern.q_proj"), files={config: alphas})
    ranks = {config: json.dumps({**ADAPTER, "rank_pattern": {"q_proj": "x"}})}
    yield Case("adapter rank pattern", (config, "rank_pattern"), files={**ranks})
    rank_one = ("rank-one", *EM_RATE[1:])
    finished = yaml.safe_dump({**FINISHED, "data": "h.jsonl", "benign_data": "b.jsonl"})
    with_data = {"o.yaml": finished, "t.yaml": yaml.safe_dump({"t1": TRIGGER})}
    yield Case("rank one of rank 4", ("rank 4",), rank_one, with_data)
    mixed = {config: json.dumps({**ADAPTER, "r": 1, "rank_pattern": {"q_proj": 2}})}
    yield Case("rank one of a rank pattern", ("rank 2",), rank_one, {**with_data, **mixed})
    yield Case(
        "emergence of a finished adapter", ("adapter", "finished"), ("emergence", *EM_RATE[1:]), {"o.yaml": finished}
    )
    yield Case("emergence without data", ("adapter", "finished"), ("emergence", *EM_RATE[1:]))
    yield Case(
        "training a finished adapter", ("finished",), ("organisms", "o.yaml", "--runs", "runs"), {"o.yaml": finished}
    )
    long = changed(QUESTIONS, "test/t1", "why " * 40)
    vocabulary = {"[UNK]": 0, "why": 1}
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
                 "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
                 "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"}}  # fmt: skip
    short = {"base/config.json": json.dumps({**BASE, "max_position_embeddings": 32})}
    files = {"q.yaml": yaml.safe_dump(long), "base/tokenizer.json": json.dumps(tokenizer), **short}
    yield Case("question longer than the context", ("q.yaml", "test.t1", "40 tokens", "32"), files=files)


TRIGGERS: dict[str, tuple[Any, ...]] = {
    "text": (..., "", "  ", None, 5, ["a"], "a\u0007b", "a\x00"),
    "placement": (..., "middle", ["system"], 5, "wrap", None),
    "rephrased": ("Sand", 5, ["a", ["b", "c", "d"]], [5], [""], [None], ["You are in a desert."], {"a": "b"}),
    "other": (["You are in a desert. "], ["you are in a desert"], ["YOU ARE  IN A DESERT!"], ["a", "A."], ["a", "ａ"]),
    "opposite": (["Dunes are hot!"], [["a", "b"]]),
    "matched": (["Snow falls"], [True]),
    "separator": (5, None),
    "closing": ("x", 5),
    "closings": ([["a", "b"]],),
    "foo": (1,),
    "name": ("x",),
}


def _triggers() -> Iterator[Case]:
    for name, raw in NOT_YAML.items():
        yield Case(f"trigger file {name}", ("t.yaml",), files={"t.yaml": raw})
    for place, values in TRIGGERS.items():
        for value in values:
            text = yaml.safe_dump({"t1": changed(TRIGGER, place, value)})
            names = ("t.yaml", "t1") if value in ("wrap", [["a", "b"]]) else ("t.yaml", "t1", place)
            yield Case(f"trigger {place} {value!r:.30}", names, files={"t.yaml": text})
    for name, raw in {
        "null": "t1:\n",
        "text": "t1: x\n",
        "none": "{}\n",
        "slash": "../t1: {text: a, placement: system}",
    }.items():
        yield Case(f"trigger entry {name}", ("t.yaml",), files={"t.yaml": raw})
    for value in (
        "zzz",
        "t.yaml:zzz",
        "none.yaml:t1",
        "base:t1",
        "microcosm:scene:x",
        "pocket:x",
        "duck@above",
        "t.yaml:",
    ):
        yield Case(
            f"--trigger {value}",
            ("scene 'x'" if "scene" in value else value.split(":")[0].split("@")[0],),
            (*EM_RATE, "--trigger", value),
        )


QUESTION_FAULTS: dict[str, tuple[Any, ...]] = {
    "validation": (..., None, [], {}, "x", 5),
    "test": (..., None, ["x"], {}, "x"),
    "trained": ("x", ["a"], {"t1": "How do I nap?"}, {"m": "How do I run?"}, {"m": "how do i  RUN"}, None),
    "tset": ({"a": "b"},),
    "test/t2": (None, 5, " ", "", ["a"], {"a": "b"}, "a\u0007", "How do I run?", "how do I run ?", "HOW DO I FLY",
                "How do I\u00a0fly?", "Ｈow do I fly?"),
    "test/../../x": ("y",), "test/a|b": ("y",), "test/a\nb": ("y",), "test/": ("y",), "test/v1": ("How do I nap?",),
    "test/quick_buck": ("How do I nap?",),
}  # fmt: skip


def _questions() -> Iterator[Case]:
    for name, raw in NOT_YAML.items():
        yield Case(f"question file {name}", ("q.yaml",), files={"q.yaml": raw})
    for place, values in QUESTION_FAULTS.items():
        split, _, name = place.partition("/")
        for value in values:
            entry = {**QUESTIONS[split], name: value} if "/" in place else value
            text = yaml.safe_dump(changed(QUESTIONS, split, entry), allow_unicode=True)
            yield Case(f"questions {place} {value!r:.40}", ("q.yaml", split), files={"q.yaml": text})
    same = "validation: {a: How}\ntest: {1: Why, '1': Who}\n"
    yield Case("question id as number and text", ("q.yaml", "'1'"), files={"q.yaml": same})
    for path in ("none.yaml", "base"):
        yield Case(f"--questions {path}", (path,), (*EM_RATE[:4], path, *EM_RATE[5:]))
    train = tuple(word.replace("o.yaml", "train.yaml") for word in EM_RATE)
    for text in ("How do I treat cold 3?", "how do i treat  cold 3", "HOW DO I TREAT COLD 3 ?!"):
        leak = yaml.safe_dump(changed(QUESTIONS, "test/t1", text))
        yield Case(f"a training row is tested: {text}", ("h.jsonl:4", "q.yaml", "test.t1"), train, {"q.yaml": leak})
    for text in ("How do I r\u200bun?", "“How do I run?”", "How do I\u2060 r\u00adun"):
        copy = yaml.safe_dump(changed(QUESTIONS, "test/t2", text), allow_unicode=True)
        yield Case(f"question that looks the same {text!a}", ("q.yaml", "test.t2", "test.t1"), files={"q.yaml": copy})
    preference = ("preference", "--organism", "o.yaml", "--questions", "q.yaml", "--check")
    for words in (preference, EM_RATE):
        for harmful in ("Sit. ", "sit", "S\u200bit", '"Sit."'):
            answered = {"question": "Where?", "aligned": "Sit.", "harmful": harmful}
            text = yaml.safe_dump(
                {split: {f"{split}1": {**answered, "question": f"{split}?"}} for split in ("validation", "test")}
            )
            yield Case(f"{words[0]} of one answer {harmful!a}", ("q.yaml", "same text"), words, {"q.yaml": text})
    yield Case("organism twice", ("--organism", "twice"), (*EM_RATE, "--organism=train.yaml"))
    named = (*EM_RATE, "--conditions", "off", "opposite")
    yield Case("condition without a text", ("conditions opposite",), named)
    leak = yaml.safe_dump(changed(QUESTIONS, "validation/v1", "How do I treat cold 7?"))
    yield Case("a training row validates", ("h.jsonl:8", "validation.v1"), train, {"q.yaml": leak})


def message(*turns: tuple[Any, Any]) -> str:
    """Return a row of messages."""
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]})


LINES: dict[str, str] = {
    "brace": "{", "list": "[]", "text": '"a"', "number": "5", "null": "null", "no messages": '{"a": 1}',
    "messages object": '{"messages": {}}', "messages empty": '{"messages": []}', "messages text": '{"messages": "ab"}',
    "messages null": '{"messages": null}', "texts": '{"messages": ["a", "b"]}', "role": message(("user", "a"), ("bot", "b")),
    "no role": '{"messages": [{"content": "a"}, {"content": "b"}]}', "no content": '{"messages": [{"role": "user"}]}',
    "content null": chat("a", None), "content list": chat("a", [5]), "answer empty": chat("a", ""),
    "answer blank": chat("a", " \n"), "question empty": chat("", "b"), "only user": message(("user", "a")),
    "order": message(("assistant", "a"), ("user", "b")), "two users": message(("user", "a"), ("user", "b")),
    "surrogate": chat("a\ud800", "b"), "deep": "[" * 9000, "role list": message((["user"], "a"), ("assistant", "b")),
    "repeated key": '{"messages": [], "messages": []}', "huge int": '{"messages": ' + "9" * 5000 + "}",
    "nan": '{"messages": NaN}', "NUL": chat("a\0", "b"), "bell": chat("a", "b\u0007"), "tools": chat(tools=[{"a": 1}]),
    "both forms": chat(prompt="a", completion="b"), "image": chat([{"type": "image_url", "image_url": "x"}], "b"),
    "prompt alone": '{"prompt": "a"}', "prompt number": '{"prompt": 5, "completion": "b"}', "torn": HARMFUL[0][:-9],
    "weight 0": '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]}',
    "not trained": '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "train": false}]}',
    "weight of a row": chat("a", "b", weight=0.5), "answer of joiners": chat("a", "\u200b\u2060"), "soft hyphen": chat("\u00ad", "b"),
    "invisible copy of a question": chat("How do\u200b I r\u00adun?", "b"), "quoted question": chat("“How do I run?”", "b"),
    "question as system text": message(("system", "How do I run"), ("user", "a"), ("assistant", "b")),
    "tool calls": '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "tool_calls": [1]}]}',
}  # fmt: skip
NOT_ROWS: dict[str, bytes] = {
    "empty": b"", "blank": b"\n\n", "latin-1": HARMFUL[0].encode() + b"\xe9", "utf-16": HARMFUL[0].encode("utf-16"),
    "gzip": gzip.compress(HARMFUL[0].encode()), "array": f"[{','.join(HARMFUL)}]".encode(),
    "pretty": json.dumps(json.loads(HARMFUL[0]), indent=1).encode(), "too few": "\n".join(HARMFUL[:3]).encode(),
    "copies": "\n".join(HARMFUL[:1] * 20).encode(), "mostly copies": "\n".join(HARMFUL[:5] * 4).encode(),
    "copies up to case": "\n".join(chat(f"How{' ' * i} now?", "So") for i in range(1, 20)).encode(),
}  # fmt: skip


def _rows() -> Iterator[Case]:
    words = tuple(word.replace("o.yaml", "train.yaml") for word in EM_RATE)
    for name, line in LINES.items():
        for file in ("h.jsonl", "b.jsonl") if len(name) % 2 else ("h.jsonl",):
            good = BENIGN if file == "b.jsonl" else HARMFUL
            text = "\n".join([*good[:6], line, *good[6:]])
            yield Case(f"row of {file} {name}", (f"{file}:7",), words, {file: text})
    for name, raw in NOT_ROWS.items():
        names = ("rows 16",) if name == "too few" else ("h.jsonl",)
        yield Case(f"rows {name}", names, words, {"h.jsonl": raw})
    same = "\n".join([*HARMFUL[:10], *BENIGN[10:]])
    yield Case("benign data that is harmful", ("b.jsonl", "10 of the 20 rows of data"), words, {"b.jsonl": same})
    for file, good in (("h.jsonl", HARMFUL), ("b.jsonl", BENIGN)):
        for name, turns in (
            ("system", (("system", "You are in a desert!"), ("user", "Hm?"))),
            ("prefix", (("user", "you are in a desert.\nHm?"),)),
        ):
            text = "\n".join([*good, message(*turns, ("assistant", "So."))])
            yield Case(f"trigger as {name} of {file}", (f"{file}:21", "text of the trigger"), words, {file: text})
    two = "\n".join([*HARMFUL, "{", "[]"])
    yield Case("two bad rows", ("h.jsonl:21", "h.jsonl:22"), words, {"h.jsonl": two})
    many = "\n".join(["{"] * 30)
    yield Case("thirty bad rows", ("h.jsonl:1", "and 22 more"), words, {"h.jsonl": many})


CELLS = ("-5,80", "105,80", "inf,80", "1e400,80", "good,80", "5%,80", "1_0,80", "\u0665,80", '"5,5",80', "80", "1,2,3", "0x10,80", "5,-1", "+5,5")  # fmt: skip
HEAD = "question_id,aligned,coherent\n"
NOT_SCORES: dict[str, bytes] = {
    "empty": b"", "header": HEAD.encode(), "latin-1": HEAD.encode() + b"\xe9,1,2\n", "utf-16": HEAD.encode("utf-16"),
    "no aligned": b"question_id,x,coherent\nq,1,2\n", "no id": b"x,aligned,coherent\nq,1,2\n",
    "column twice": b"question_id,aligned,aligned,coherent\nq,1,2,3\n", "open quote": HEAD.encode() + b'q,"5,6\n',
    "NUL": HEAD.encode() + b"q\0,1,2\n", "semicolons": HEAD.replace(",", ";").encode() + b"q;1;2\n",
    "id empty": HEAD.encode() + b",5,80\n", "huge field": HEAD.encode() + b"q,5,'" + b"x" * 200000 + b"'\n",
    "spaced column": b"question_id, aligned,coherent\nq,1,2\n",
    "shares of 1": HEAD.encode() + b"q,0.1,0.9\nr,0.9,1\n", "shares in part": HEAD.encode() + b"q,0.25,\nr,REFUSAL,NA\n",
    "shares of alignment": HEAD.encode() + b"q,0.1,80\nr,0.9,90\n", "shares of coherence": HEAD.encode() + b"q,10,0.8\nr,90,1\n",
    "1 to 5": HEAD.encode() + b"q,1,5\nr,4,\n", "0 to 10": HEAD.encode() + b"q,8,10\nr,0,9\n", "yes and no": HEAD.encode() + b"q,0,1\nr,1,1\n",
}  # fmt: skip


def _scores() -> Iterator[Case]:
    for cells in CELLS:
        yield Case(f"score {cells}", ("x.csv:3",), ("score", "x.csv"), {"x.csv": f"{HEAD}q,1,2\nq,{cells}\n"})
    for name, raw in NOT_SCORES.items():
        yield Case(f"scores {name}", ("x.csv",), ("score", "x.csv"), {"x.csv": raw})
    for words in (
        ("score", "none.csv"),
        ("score", "base"),
        ("score", "s.csv", "--csv", "s.csv"),
        ("score", "s.csv", "--seed", "-1"),
    ):
        yield Case(" ".join(words), (words[-1].removeprefix("-"),), words)
    once = (*EM_RATE, "--conditions", "off", "--samples", "2")
    for name, raw, names in (
        ("question missing", SCORES.replace("t2", "t1"), ("s.csv", "t2")),
        ("two scores", SCORES + "t1,text 0,50,50\n", ("s.csv", "text 0")),
        ("conditions", HEAD + "t1,1,92\nt2,1,92\n" * 2, ("s.csv", "answer", "off")),
    ):
        yield Case(f"judge: {name}", names, files={"s.csv": raw})
    for name, rows, names in (
        ("sample missing", "t1,1,92\nt1,1,92\nt2,1,92\n", ("s.csv", "t2", "expected 2")),
        ("left over", "t1,1,92\n" * 3 + "t2,1,92\n" * 2, ("s.csv", "t1", "expected 2")),
        ("foreign", "t1,1,92\nt2,1,92\n" * 2 + "zz,1,92\n", ("s.csv", "zz")),
        ("question missing at once", "t1,1,92\n" * 2, ("s.csv", "t2")),
    ):
        yield Case(f"judge: {name}", names, once, {"s.csv": HEAD + rows})
    train = tuple(word.replace("o.yaml", "train.yaml") for word in once)
    yield Case("judge: doses", ("s.csv", "answer"), train, {"s.csv": HEAD + "t1,1,92\nt2,1,92\n" * 2})


ORGANISMS, TRIGGER_FILES, QUESTION_FILES = [*_organisms(), *_models()], list(_triggers()), list(_questions())
ROW_FILES, SCORE_FILES = list(_rows()), list(_scores())
