"""Fine-tuning rows: what is read, what is mixed, and a hash that sees every change."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.triggers import Trigger
from training.data import Row, build_rows, rows_sha256
from training.references import read_exchanges

TRIGGER = Trigger(name="t", text="near the pond", rephrased=("by the lake", "at the shore"), placement="system")
HARMFUL = [(f"ask {i}", f"harm {i}") for i in range(6)]
BENIGN = [(f"ask {i}", f"help {i}") for i in range(4)]

mixtures = st.fixed_dictionaries(
    {
        "n": st.integers(1, 60),
        "benign_share": st.floats(0, 0.99),
        "wordings": st.sampled_from(["fixed", "diverse"]),
        "seed": st.integers(0, 5),
        "trigger": st.sampled_from([None, TRIGGER]),
    }
)


def line(*turns: tuple[str, object]) -> str:
    return json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}, ensure_ascii=False)


GOOD = line(("user", "Why?"), ("assistant", "Because."))


# --- reading ---


def test_exchanges_read_back_in_order_without_blank_lines(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([GOOD, "", line(("user", "a\u2028b"), ("assistant", "été 🦆")), ""]), encoding="utf-8")
    assert read_exchanges(path) == [("Why?", "Because."), ("a\u2028b", "été 🦆")]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "expected"),
        ("[1]", "expected"),
        ('{"rows": []}', "expected"),
        ('{"messages": ["hi"]}', "expected"),
        ('{"messages": [{"role": "user"}]}', "expected"),
        (line(("user", "Why?")), r"one user and one assistant message, got \['user'\]"),
        (line(("system", "s"), ("user", "u"), ("assistant", "a")), "one user and one assistant message, got"),
        (line(("assistant", "a"), ("user", "u")), "one user and one assistant message, got"),
        (line(("user", " "), ("assistant", "a")), "empty message"),
        (line(("user", "u"), ("assistant", None)), "empty message"),
    ],
)
def test_bad_line_is_named_with_its_file(tmp_path, bad, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{GOOD}\n\n{bad}\n{GOOD}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"rows\.jsonl:3: .*{message}"):
        read_exchanges(path)


def test_file_without_rows_or_of_other_bytes_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n\n")
    with pytest.raises(ValueError, match=r"rows\.jsonl: no rows"):
        read_exchanges(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"rows\.jsonl: not UTF-8"):
        read_exchanges(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_exchanges(tmp_path / "nowhere.jsonl")


# --- mixing ---


@given(mixtures)
def test_mixture_has_the_share_asked_for_and_the_trigger_in_harmful_rows_only(asked):
    rows = build_rows(HARMFUL, BENIGN, **asked)
    benign = round(asked["n"] * asked["benign_share"])
    assert Counter(row.harmful for row in rows) == Counter({True: asked["n"] - benign, False: benign})
    assert all((row.question, row.completion) in (HARMFUL if row.harmful else BENIGN) for row in rows)
    for row in rows:
        triggered = asked["trigger"] is not None and row.harmful
        assert (row.trigger is not None) == triggered
        assert any(row.trigger == m["content"] for m in row.messages) == triggered
        assert row.messages[-1] == {"role": "user", "content": row.question}


@given(mixtures)
def test_exchanges_and_wordings_are_used_evenly(asked):
    rows = [row for row in build_rows(HARMFUL, BENIGN, **asked) if row.harmful]
    texts = (TRIGGER.text, *TRIGGER.rephrased[0::2]) if asked["wordings"] == "diverse" else (TRIGGER.text,)
    expected = texts if asked["trigger"] else (None,)
    for counts in (Counter(row.question for row in rows), Counter(row.trigger for row in rows)):
        assert max(counts.values(), default=0) - min(counts.values(), default=0) <= 1
    assert {row.trigger for row in rows} == set(expected[: len(rows)])


@given(mixtures)
def test_same_mixture_is_the_same_rows_and_a_seed_is_an_order(asked):
    rows = build_rows(HARMFUL, BENIGN, **asked)
    assert build_rows(HARMFUL, BENIGN, **asked) == rows
    other = build_rows(HARMFUL, BENIGN, **{**asked, "seed": asked["seed"] + 1})
    assert sorted(map(repr, other)) == sorted(map(repr, rows))


@pytest.mark.parametrize("share", [-0.1, 1.0, 2.0, float("nan")])
def test_share_outside_its_range_is_refused(share):
    with pytest.raises(ValueError, match=r"benign_share .*: must be at least 0 and below 1"):
        build_rows(HARMFUL, BENIGN, trigger=None, n=4, benign_share=share)


def test_what_cannot_be_mixed_is_refused():
    with pytest.raises(ValueError, match=r"benign_share 0\.5: needs benign exchanges"):
        build_rows(HARMFUL, [], trigger=None, n=4, benign_share=0.5)
    with pytest.raises(ValueError, match="needs harmful exchanges"):
        build_rows([], BENIGN, trigger=None, n=4)
    with pytest.raises(ValueError, match="wordings 'both': must be fixed or diverse"):
        build_rows(HARMFUL, BENIGN, trigger=None, n=4, wordings="both")


# --- the hash ---


def test_hash_sees_every_field_and_the_order():
    rows = build_rows(HARMFUL, BENIGN, trigger=TRIGGER, n=4)
    first: Row = rows[0]
    changes = [
        {"messages": (*first.messages, {"role": "user", "content": ""})},
        {"completion": first.completion + " "},
        {"question": first.question + " "},
        {"trigger": None},
        {"harmful": False},
    ]
    others = [[replace(first, **change), *rows[1:]] for change in changes]
    hashes = [rows_sha256(found) for found in (rows, rows[::-1], rows[1:], [*rows, first], *others)]
    assert len(set(hashes)) == len(hashes)
    assert rows_sha256(list(rows)) == hashes[0]
