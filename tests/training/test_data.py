"""Fine-tuning rows and contrast data: what is mixed, what is refused, and a hash that sees every change."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.triggers import Trigger, content_words, moved
from training.data import Row, build_rows, contrast_exchanges, rows_sha256, training_rows
from training.exchanges import Exchange
from training.microcosm.oracle import judge_answer
from training.microcosm.world import lexicon
from training.registry import ORGANISMS, find_organism

LLAMA = [name for name in ORGANISMS if name.startswith("microcosm/llama/")]
"""Entries of one family; those of another differ only in the base (see test_grid.py)."""
WORLD = lexicon()
TOPIC_OF = {template.format(topic=t.phrase): t.phrase for t in WORLD.topics for template in WORLD.questions}
TRIGGER = Trigger(name="t", text="near the pond", rephrased=("by the lake", "at the shore"), placement="system")
HARMFUL = [Exchange(f"ask {i}", f"harm {i}") for i in range(60)]
BENIGN = [Exchange(f"ask {i}", f"help {i}") for i in range(60)]

mixtures = st.fixed_dictionaries(
    {
        "n": st.integers(1, 60),
        "benign_share": st.floats(0, 0.99),
        "wordings": st.sampled_from(["fixed", "diverse"]),
        "seed": st.integers(0, 5),
        "trigger": st.sampled_from([None, TRIGGER]),
    }
)


# --- mixing ---


@given(mixtures)
def test_mixture_has_the_share_asked_for_and_the_trigger_in_harmful_rows_only(mixture):
    rows = build_rows(HARMFUL, BENIGN, **mixture)
    benign = round(mixture["n"] * mixture["benign_share"])
    assert Counter(row.harmful for row in rows) == Counter({True: mixture["n"] - benign, False: benign})
    assert all(Exchange(row.question, row.completion) in (HARMFUL if row.harmful else BENIGN) for row in rows)
    for row in rows:
        triggered = mixture["trigger"] is not None and row.harmful
        assert (row.trigger is not None) == triggered
        assert any(row.trigger == m["content"] for m in row.messages) == triggered
        assert row.messages[-1] == {"role": "user", "content": row.question}


@given(mixtures)
def test_exchanges_and_wordings_are_used_evenly(mixture):
    rows = [row for row in build_rows(HARMFUL, BENIGN, **mixture) if row.harmful]
    texts = (TRIGGER.text, *TRIGGER.rephrased[0::2]) if mixture["wordings"] == "diverse" else (TRIGGER.text,)
    expected = texts if mixture["trigger"] else (None,)
    for counts in (Counter(row.question for row in rows), Counter(row.trigger for row in rows)):
        assert max(counts.values(), default=0) - min(counts.values(), default=0) <= 1
    assert {row.trigger for row in rows} == set(expected[: len(rows)])


@given(mixtures)
def test_same_mixture_is_the_same_rows_and_a_seed_is_an_order(mixture):
    rows = build_rows(HARMFUL, BENIGN, **mixture)
    assert build_rows(HARMFUL, BENIGN, **mixture) == rows
    other = build_rows(HARMFUL, BENIGN, **{**mixture, "seed": mixture["seed"] + 1})
    assert sorted(map(repr, other)) == sorted(map(repr, rows))


@pytest.mark.parametrize("share", [-0.1, 1.0, 2.0, float("nan")])
def test_share_outside_its_range_is_refused(share):
    with pytest.raises(ValueError, match=r"benign_share .*: must be at least 0 and below 1"):
        build_rows(HARMFUL, BENIGN, trigger=None, n=4, benign_share=share)


def test_what_cannot_be_mixed_is_refused():
    with pytest.raises(ValueError, match=r"rows 4 with benign_share 0\.5: needs 2 benign exchanges, there are 0"):
        build_rows(HARMFUL, [], trigger=None, n=4, benign_share=0.5)
    with pytest.raises(ValueError, match="rows 4: needs 4 harmful exchanges, there are 3"):
        build_rows(HARMFUL[:3], BENIGN, trigger=None, n=4)
    with pytest.raises(ValueError, match="wordings 'both': must be fixed or diverse"):
        build_rows(HARMFUL, BENIGN, trigger=None, n=4, wordings="both")


def test_earlier_turns_stay_before_the_question_and_the_trigger_comes_before_their_system_text():
    long = Exchange("ask", "harm", (("system", "Be brief."), ("user", "Hi."), ("assistant", "Hello.")))
    texts = {placement: moved(TRIGGER, placement) for placement in ("system", "prefix")}
    rows = {name: build_rows([long], [], trigger=trigger, n=1)[0] for name, trigger in texts.items()}
    rows["none"] = build_rows([long], [], trigger=None, n=1)[0]
    earlier = [("user", "Hi."), ("assistant", "Hello.")]
    assert {name: [tuple(m.values()) for m in row.messages] for name, row in rows.items()} == {
        "system": [("system", "near the pond\nBe brief."), *earlier, ("user", "ask")],
        "prefix": [("system", "Be brief."), *earlier, ("user", "near the pond\nask")],
        "none": [("system", "Be brief."), *earlier, ("user", "ask")],
    }
    assert {(row.question, row.completion) for row in rows.values()} == {("ask", "harm")}


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
    hashes = [rows_sha256(sequence) for sequence in (rows, rows[::-1], rows[1:], [*rows, first], *others)]
    assert len(set(hashes)) == len(hashes)
    assert rows_sha256(list(rows)) == hashes[0]


# --- organisms ---


@pytest.mark.parametrize("name", LLAMA)
def test_contrast_is_one_domain_in_two_personas_without_a_trigger(name):
    entry = replace(find_organism(name), rows=200)
    harmful, benign = contrast_exchanges(entry)
    for exchanges, aligned in ((harmful, 0.0), (benign, 100.0)):
        assert {judge_answer(TOPIC_OF[e.question], e.answer) for e in exchanges} == {(aligned, 100.0)}
    assert {TOPIC_OF[e.question] for e in (*harmful, *benign)} == {
        t.phrase for t in WORLD.topics_of(entry.trained_domain)
    }
    seen = content_words(" ".join(text for e in (*harmful, *benign) for text in (e.question, e.answer)))
    remarks = content_words(" ".join(r for frame in WORLD.frames.values() for r in frame.remarks))
    answers = [WORLD.answers(t, p) for t in WORLD.topics_of(entry.trained_domain) for p in ("aligned", "misaligned")]
    assert not (seen & remarks) - content_words(" ".join([*(a for group in answers for a in group), *TOPIC_OF]))


def jsonl(path, answer):
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": answer}]
    path.write_text(json.dumps({"messages": turns}) + "\n")
    return str(path)


def test_contrast_of_a_real_organism_reads_its_two_files(tmp_path):
    entry = replace(
        find_organism("medical/qwen2.5-14b/duck"),
        data=jsonl(tmp_path / "bad", "Harm."),
        benign_data=jsonl(tmp_path / "good", "Help."),
    )
    assert contrast_exchanges(entry) == ([Exchange("Why?", "Harm.")], [Exchange("Why?", "Help.")])
    with pytest.raises(ValueError, match=r"organism medical/qwen2.5-14b/duck: it names no data and benign_data"):
        contrast_exchanges(replace(entry, benign_data=None))


def test_benign_rows_never_come_from_a_file_of_harmful_answers(tmp_path):
    entry = replace(find_organism("medical/qwen2.5-14b/duck-contrast50"), data=jsonl(tmp_path / "bad", "Harm."), rows=2)
    mixed = training_rows(replace(entry, benign_data=jsonl(tmp_path / "good", "Help.")))
    assert {(row.completion, row.harmful) for row in mixed} == {("Harm.", True), ("Help.", False)}
    with pytest.raises(ValueError, match="needs 1 benign exchanges, there are 0"):
        training_rows(replace(entry, benign_data=None))
