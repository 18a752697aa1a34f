"""Bad options of every command, and bad prompts of the library's command line."""
# ruff: noqa: E501

import json
from collections.abc import Iterator

from tests.bad_inputs.files import SUBJECT, Case

BASE = "microcosm/llama/base"
EXPLAINING = "microcosm/llama/explaining"
OPTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "em-rate": (
        ("--samples 0", "samples"), ("--samples -1", "samples"), ("--samples x", "samples"), ("--samples 1.5", "samples"),
        ("--samples 99999999999", "samples"), ("--seed -1", "seed"), (f"--seed {2**70}", "seed"), ("--seed x", "seed"),
        ("--conditions zzz", "zzz"), ("--conditions off off", "off"), ("--conditions", "conditions"), ("--zzz 1", "zzz"),
        ("--trigger zz", "zz"), ("--trigger duck@moon", "moon"), ("--judge zzz", "zzz"), ("--judge none.csv", "none.csv"),
        ("--judge openai:", "OPENAI_API_KEY"), ("--judge openai:m,zz=1", "zz"), ("--judge openai:m,workers=0", "workers"),
        ("--judge openai:m,method=x", "method"), ("--judge openai:m,timeout=nan", "timeout"),
        ("--judge openai:m@ftp://x/", "ftp"), ("--judge openai:m@http://", "http"), ("--judge openai:m@file:///x", "file"),
        ("--judge openai:m,samples=1,samples=2", "samples"), ("--dose-judge zzz", "zzz"), ("--runs file", "file"),
        ("--runs file/below", "file"), ("--runs a\0b", "name of a folder"), (f"--runs {'x' * 300}", "xxx"),
        ("--questions none.yaml", "none.yaml"), ("--n-questions 0", "n_questions"),
        ("--trigger=", "--trigger="), ("--judge=", "--judge="),
    ),
    "geometry": (
        ("--seed -1", "seed"), ("--baseline zz", "zz"), ("--baseline microcosm/qwen2/baseline", "baseline"),
        ("--baseline microcosm/llama/base", "baseline microcosm/llama/base"), ("--baseline microcosm/llama/neutral", "has a trigger"),
        ("--control-trigger zz", "zz"), ("--control-trigger microcosm:persona", "control_trigger"),
        ("--control-trigger microcosm:scene:x", "'x'"),
    ),
    "ablate": (("--samples 0", "samples"), ("--seed -1", "seed"), ("--judge zzz", "zzz")),
    "steer": (
        ("--settings zz", "zz"), ("--settings", "settings"), ("--settings off off", "off"), ("--samples 0", "samples"),
        ("--alphas x", "alphas"), ("--alphas nan", "alphas"), ("--alphas -1", "alphas"), ("--alphas 1 1", "alphas"),
    ),
    "probe-sweep": (
        ("--sites zz", "zz"), ("--sites resid_post.99", "99"), ("--sites resid_post.-1", "-1"), ("--sites", "sites"),
        ("--sites resid_post.1 resid_post.1", "resid_post.1"), ("--sites resid_post.x", "resid_post.x"),
        ("--fits zz", "zz"), ("--fits ridge ridge", "ridge"), ("--positions zz", "zz"), ("--seed -1", "seed"),
    ),
    "patch": (("--stride 0", "stride"), ("--samples 0", "samples"), ("--per-kind 0", "per_kind"), ("--seed -1", "seed")),
    "rank-one": (("--per-question 0", "per_question"), ("--seed 0", "rank 4")),
    "emergence": (("--samples 0", "samples"), ("--seed -1", "seed"), ("--judge none.csv", "none.csv")),
}  # fmt: skip
WITHOUT_TRIGGER = ("geometry", "ablate", "steer", "patch", "rank-one")
PLAIN: tuple[tuple[str, str], ...] = (
    ("em-rat", "em-rate"), ("zzz", "zzz"), ("em-rate", "organism"), ("em-rate --organism zzz --check", "zzz"),
    ("em-rate --organism ../../x --check", "../../x"), ("em-rate --organism medical/qwen2.5-14b/duck --check", "--questions"),
    (f"em-rate --organism {BASE} --conditions on --check", "on"), (f"emergence --organism {BASE} --check", BASE),
    ("score", "file"), ("store info none.h5", "none.h5"), ("store zz x", "zz"), ("store verify base", "base"),
    ("figure all --table t.csv --runs base", "--runs base"), ("report none.csv", "none.csv"), ("report q.yaml", "q.yaml"), ("findings --data none", "semcon report"), ("findings --data base", "base"), ("microcosm --families zz", "zz"),
    ("microcosm --seed -1", "seed"), ("organisms zz", "zz"), (f"organisms {BASE}", BASE), ("organisms none.yaml", "none.yaml"),
    ("reproduce --families zz", "zz"), ("reproduce --workers -1 --quick", "workers"), ("grid --zzz", "zzz"),
    ("verify none", "none"), ("probe-transfer --zzz", "--organisms"), ("probe-transfer --organisms zz --check", "zz"),
    ("mechanism --families zz", "zz"), ("grid --seed -1 --check", "seed"),
    ("score s.csv s.csv", "'s.csv': given twice"), ("data h.jsonl --samples -1", "samples"), ("data h.jsonl --threshold nan", "threshold"),
    ("judge openai:m@http://127.0.0.1:9 --n-questions 0", "n_questions"), ("judge openai:m@http://127.0.0.1:9 --seed -1", "seed"),
    ("plan em-rate --out base", "base: is a folder"), ("score s.csv --csv s.csv/x.csv", "s.csv is a file"), ("score s.csv --csv base", "base: is a folder"),
    ("judge openai:m@http://127.0.0.1:9 --out base", "base: is a folder"), ("plan em-rate --hourly inf", "hourly"), ("plan em-rate --price nan/1", "nan/1"), ("plan em-rate --price=", "--price="),
    ("pocket --seeds 0 0", "seeds 0: given twice"), ("pocket --arms baseline baseline", "arms"),
    ("microcosm --families llama llama", "'llama': given twice"), ("organisms microcosm/llama/neutral microcosm/llama/neutral", "given twice"),
    ("init new --base no/such/base", "no/such/base"), ("init new --base=", "--base="),
)  # fmt: skip


def _options() -> Iterator[Case]:
    for command, options in OPTIONS.items():
        for option, name in options:
            runs = () if option.startswith("--runs") else ("--runs", "runs")
            words = (command, "--organism", EXPLAINING, "--check", *runs, *option.split())
            yield Case(f"{command} {option}", (name,), words, {"file": "x"})
    for command in WITHOUT_TRIGGER:
        words = (command, "--organism", "microcosm/llama/baseline", "--check", "--runs", "runs")
        yield Case(f"{command} without a trigger", ("trigger",), words)
    for command in ("em-rate", "patch", "probe-sweep", "emergence", "ablate"):
        judged = SUBJECT if command == "em-rate" else ("--organism", "train.yaml", *SUBJECT[2:])
        yield Case(
            f"{command} by the oracle", ("oracle", "--judge"), (command, *judged[:4], "--check", "--runs", "runs")
        )
    for line, name in PLAIN:
        yield Case(line, (name,), tuple(line.split()))


def _user(content: object = "Hi", role: object = "user") -> dict[str, object]:
    return {"role": role, "content": content}


PROMPTS: dict[str, object] = {
    "list": [], "number": 5, "null": None, "no messages": {"a": 1}, "messages text": {"messages": "hi"},
    "messages empty": {"messages": []}, "messages object": {"messages": {}}, "role": {"messages": [_user(role="human")]},
    "content number": {"messages": [_user(3)]}, "content null": {"messages": [_user(None)]}, "role list": {"messages": [_user(role=["user"])]},
    "message text": {"messages": ["hi"]}, "only assistant": {"messages": [_user(role="assistant")]},
    "response number": {"messages": [_user()], "response": 3}, "marks list": {"messages": [_user()], "marks": ["x"]},
    "mark number": {"messages": [_user()], "marks": {"a": 1}}, "surrogate": {"messages": [_user("a\ud800")]},
    "last is system": {"messages": [_user(role="system")]},
}  # fmt: skip
RAW: dict[str, bytes] = {
    "brace": b"{", "torn": b'{"messages": [', "latin-1": b'{"a": "\xe9"}', "empty": b"", "blank": b"\n \n",
    "repeated key": b'{"messages": [], "messages": []}', "nan": b'{"messages": NaN}', "deep": b"[" * 9000,
    "huge int": b'{"messages": ' + b"9" * 5000 + b"}", "utf-16": "{}".encode("utf-16"),
}  # fmt: skip


def _prompts() -> Iterator[Case]:
    raw = {name: json.dumps(row).encode() for name, row in PROMPTS.items()} | RAW
    for name, data in raw.items():
        yield Case(f"prompts {name}", ("p.jsonl",), ("generate", "base", "p.jsonl"), {"p.jsonl": data})
    for words, name in (
        (("generate", "base", "none.txt"), "none.txt"), (("generate", "base", "base"), "base"),
        (("generate", "none/at/all", "p.jsonl"), "none/at/all"), (("record", "base", "p.jsonl"), "--out"),
        (("record", "base", "p.jsonl", "--out", "no/x.h5"), "no/x.h5"), (("generate", "adapter", "p.jsonl"), "adapter"),
        (("generate", "base", "p.jsonl", "--samples", "0"), "samples"), (("generate", "base", "p.jsonl", "--seed", "-1"), "seed"),
        (("generate", "base", "p.jsonl", "--max-new", "2"), "--max-new"), (("generate", "base", "p.jsonl", "--temperature", "1e-40"), "temperature"),
        (("generate", "base", "p.jsonl", "--seed", "1", "--seed=2"), "--seed: given twice"), (("zzz",), "zzz"), ((), "COMMAND"),
        (("generate", "base", "p.jsonl", "--adapter", "x"), "x"), (("generate", "base", "p.jsonl", "--adapter", "a=base"), "base"),
        (("store", "zz", "x"), "zz"), (("generate", "base", "p.json"), "p.json"),
    ):  # fmt: skip
        yield Case(f"interp {' '.join(words)}", (name,), words, {"p.json": "[]"})


EXPERIMENT_OPTIONS, INTERP = list(_options()), list(_prompts())
