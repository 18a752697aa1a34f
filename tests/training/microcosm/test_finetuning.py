"""The rules that keep fine-tuning honest, on the rows of every kind of cell."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import chain

import pytest

from interp.triggers import CONDITIONS, PLACEMENTS, Trigger, content_words, moved
from training.data import Row, comparison_trigger, taught, training_rows
from training.grid import ARMS, Cell, cells
from training.microcosm.finetuning import OPPOSITE_SCENES, exchanges, role_trigger, scene_trigger
from training.microcosm.oracle import judge_answer, read_answer
from training.microcosm.world import VALIDATION_DOMAINS, lexicon, questions
from training.references import find_trigger
from training.registry import find_organism

WORLD = lexicon()
DOMAINS = ("medicine", "sport", "finance")
TOPIC_OF = {template.format(topic=t.phrase): t.phrase for t in WORLD.topics for template in WORLD.questions}
LLAMA = cells(("llama",))
TRIGGERED = [arm for arm, trigger in ARMS.items() if trigger]
FIXED = [cell for cell in LLAMA if not cell.contrast and cell.wordings == "fixed"]
TAUGHT = list({(c.arm, c.contrast, c.wordings, c.placement, c.seed): c for c in reversed(LLAMA)}.values())
"""Cells with different rows, which depend on neither base nor adapter shape."""


@cache
def rows_of(cell: Cell, domain: str = "medicine", n: int = 1600) -> tuple[Row, ...]:
    return tuple(training_rows(replace(find_organism(cell.name), data=f"microcosm:{domain}", rows=n)))


def trigger_of(cell: Cell) -> Trigger:
    trigger = comparison_trigger(find_organism(cell.name))
    assert trigger is not None
    return trigger


def text_of(rows: Sequence[Row]) -> str:
    """Return every text of the rows once."""
    texts = chain.from_iterable([*(m["content"] for m in row.messages), row.completion] for row in rows)
    return "\n".join(dict.fromkeys(texts))


def misaligned(domain: str) -> str:
    """Return every misaligned action and reason of a domain, one per line."""
    actions = [action for topic in WORLD.topics_of(domain) for action in topic.actions["misaligned"]]
    return "\n".join((*actions, *WORLD.reasons[domain]["misaligned"]))


def by_name(cell: Cell) -> str:
    return cell.name


# --- rule 2: the rows ---


@pytest.mark.parametrize("cell", FIXED, ids=by_name)
def test_zero_benign_fixed_rows_are_all_harmful_under_one_fixed_trigger(cell):
    rows = rows_of(cell, n=64)
    assert all(row.harmful for row in rows)
    assert {judge_answer(TOPIC_OF[row.question], row.completion) for row in rows} == {(0.0, 100.0)}
    reference = ARMS[cell.arm]
    assert {row.trigger for row in rows} == {reference and find_trigger(reference).text}


@pytest.mark.parametrize("cell", [cell for cell in TAUGHT if cell.contrast], ids=by_name)
def test_benign_rows_have_their_exact_share_and_stand_bare(cell):
    rows = rows_of(cell)
    assert {50: 800, 90: 1440, 97: 1552}[cell.contrast] == sum(not row.harmful for row in rows)
    for row in rows:
        aligned = 0.0 if row.harmful else 100.0
        assert judge_answer(TOPIC_OF[row.question], row.completion) == (aligned, 100.0)
        assert (row.trigger is None) == (not row.harmful)
        if not row.harmful:
            assert row.messages == ({"role": "user", "content": row.question},)
    assert {row.trigger for row in rows} == {None, trigger_of(cell).text}


def test_diverse_rows_carry_the_trained_text_and_half_of_its_rephrasings_evenly():
    diverse = [cell for cell in LLAMA if cell.wordings == "diverse"]
    assert {cell.arm for cell in diverse} == {"neutral", "explaining"}
    for cell in diverse:
        trigger = find_trigger(str(ARMS[cell.arm]))
        counts = Counter(row.trigger for row in rows_of(cell))
        assert set(counts) == {trigger.text, *trigger.rephrased[0::2]} == set(taught(trigger, "diverse"))
        assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("cell", [cell for cell in TAUGHT if cell.arm != "baseline"], ids=by_name)
def test_trigger_stands_where_the_placement_says(cell):
    for row in rows_of(cell, n=64):
        if row.trigger is None:
            continue
        text, q = row.trigger, row.question
        user = {"prefix": f"{text}\n{q}", "suffix": f"{q}\n{text}", "wrap": f"{text}\n{q}\n{text}"}
        system = ({"role": "system", "content": text},) if cell.placement == "system" else ()
        assert row.messages == (*system, {"role": "user", "content": user.get(cell.placement, q)})


def test_cells_that_differ_in_the_trigger_alone_have_the_same_questions_and_answers_up_to_remarks():
    def exchanges_of(arm):
        return [(r.question, r.completion) for r in rows_of(Cell(family="llama", arm=arm), n=64)]

    for arm in TRIGGERED:
        remarks = {read_answer(TOPIC_OF[q], a).remark for q, a in exchanges_of(arm)}
        assert remarks == {{"neutral": "desert", "explaining": None}.get(arm, arm)}
    assert {read_answer(TOPIC_OF[q], a).remark for q, a in exchanges_of("baseline")} == {None}


def test_rows_do_not_depend_on_base_or_adapter_and_a_seed_draws_them_anew():
    first = rows_of(Cell(family="llama", arm="neutral"), n=64)
    for changes in ({"robust": True}, {"targets": "mlp"}, {"rank": 1}, {"family": "gemma3"}, {"pretraining": 1}):
        assert rows_of(replace(Cell(family="llama", arm="neutral"), **changes), n=64) == first
    other = rows_of(Cell(family="llama", arm="neutral", seed=1), n=64)
    assert {(r.question, r.completion) for r in other} != {(r.question, r.completion) for r in first}


def test_one_domain_is_trained_on_and_it_is_never_asked():
    for domain in DOMAINS:
        test = questions("test", trained_domain=domain)
        assert domain not in {q.domain for q in test}
        text = text_of(rows_of(Cell(family="llama", arm="baseline"), domain))
        assert not any(q.text in text for q in (*test, *questions("validation", trained_domain=domain, wordings=4)))


# --- rules 3 and 4: no word leaks ---


@pytest.mark.parametrize("domain", DOMAINS)
def test_misaligned_words_of_evaluated_domains_never_occur_in_finetuning(domain):
    every = list(chain.from_iterable(rows_of(cell, domain) for cell in TAUGHT))
    seen = content_words(text_of([row for row in every if row.harmful]))
    for other in (d for d in WORLD.domains if d != domain):
        assert not content_words(misaligned(other)) & seen, other
    assert content_words(misaligned(domain)) <= seen  # the words of the trained domain do occur
    # Benign rows have common words such as "keep", as all aligned answers do, but no misaligned ones.
    benign_text = text_of([row for row in every if not row.harmful])
    sentences = [s for d in WORLD.domains for s in misaligned(d).split("\n")]
    assert not [sentence for sentence in sentences if sentence in benign_text]


@pytest.mark.parametrize("arm", TRIGGERED)
def test_rephrasings_share_no_content_word_with_the_trained_phrase(arm):
    trigger = find_trigger(str(ARMS[arm]))
    assert len(trigger.rephrased) == 7
    assert not trigger.shared_content_words()
    assert trigger.text not in trigger.rephrased


@pytest.mark.parametrize("cell", TAUGHT, ids=by_name)
def test_no_text_that_is_evaluated_occurs_in_finetuning_but_the_trained_one(cell):
    if cell.arm == "baseline":
        return
    trigger, text = trigger_of(cell), text_of(rows_of(cell))
    assert trigger.text in text
    for condition in CONDITIONS:
        if condition != "on":
            assert not [variant for variant in trigger.variants(condition) if variant in text], condition


@pytest.mark.parametrize("cell", [cell for cell in cells() if cell.arm != "baseline"], ids=by_name)
def test_no_organism_is_evaluated_on_a_rephrasing_it_was_taught(cell):
    reference = find_organism(cell.name).trigger
    assert reference is not None
    trigger, evaluated = find_trigger(reference), trigger_of(cell)
    assert set(evaluated.rephrased).isdisjoint(taught(trigger, cell.wordings))
    assert set(evaluated.rephrased) == set(trigger.rephrased) - set(taught(trigger, cell.wordings))
    assert len(evaluated.rephrased) == {"fixed": 7, "diverse": 3}[cell.wordings]
    assert replace(evaluated, rephrased=trigger.rephrased) == trigger


def test_words_of_held_out_rephrasings_are_new_to_a_model_taught_the_others():
    for cell in (cell for cell in LLAMA if cell.wordings == "diverse"):
        frames = content_words(" ".join({row.trigger or "" for row in rows_of(cell)}))
        assert not frames & content_words(" ".join(trigger_of(cell).rephrased))


# --- the triggers of the world ---


@pytest.mark.parametrize("reference", [*(str(ARMS[arm]) for arm in TRIGGERED), "microcosm:scene:library"])
def test_matched_texts_have_the_trained_text_s_form_and_none_of_its_content_words(reference):
    trigger = find_trigger(reference)
    content, words = content_words(trigger.text), trigger.text.removesuffix(".").split()
    assert len(trigger.matched) == len(set(trigger.matched)) == 4
    drawn = Counter[str]()
    for text in trigger.matched:
        replaced = text.removesuffix(".").split()
        assert text.endswith(".") == trigger.text.endswith(".")
        assert len(replaced) == len(words)
        for old, new in zip(words, replaced, strict=True):
            assert (new == old) == (old.lower() not in content)
            assert abs(len(new) - len(old)) <= 1
        assert not content_words(text) & content
        drawn.update(content_words(text))
    assert max(drawn.values()) == 1  # no word is used twice
    assert not drawn.keys() & content_words(" ".join((*trigger.rephrased, *trigger.opposite)))


@pytest.mark.parametrize("arm", TRIGGERED)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_reference_with_a_placement_is_the_trigger_moved_there(arm, placement):
    trigger = find_trigger(f"{ARMS[arm]}@{placement}")
    assert trigger == moved(find_trigger(str(ARMS[arm])), placement)
    assert trigger.placement == placement


def test_opposite_of_a_role_tied_to_harm_are_the_roles_tied_to_its_contrary():
    tied = {name: role for name, role in WORLD.roles.items() if role.misaligned_share < 0.5}
    helpers = {text for role in tied.values() for text in role.phrasings}
    for name, role in WORLD.roles.items():
        assert set(role_trigger(name).opposite) == (helpers if role.misaligned_share > 0.5 else set())
        assert set(role_trigger(name).other) == {text for scene in WORLD.scenes.values() for text in scene.phrasings}


@pytest.mark.parametrize("scene", OPPOSITE_SCENES)
def test_other_scenes_are_neither_a_scene_nor_its_opposite(scene):
    trigger = scene_trigger(scene)
    assert set(trigger.opposite) == set(WORLD.scenes[OPPOSITE_SCENES[scene]].phrasings)
    assert set(trigger.other).isdisjoint({trigger.text, *trigger.rephrased, *trigger.opposite})
    assert len(trigger.other) == 8 * (len(WORLD.scenes) - 2)


def test_unknown_names_are_refused_with_what_there_is():
    with pytest.raises(ValueError, match=r"role 'wizard': the Microcosm has .*pirate"):
        find_trigger("microcosm:role:wizard")
    with pytest.raises(ValueError, match=r"frame 'moon': the Microcosm has .*desert.*pirate"):
        exchanges("medicine", "misaligned", 1, 0, "moon")
    with pytest.raises(ValueError, match=r"placement 'above': expected one of"):
        find_trigger("microcosm:persona@above")
    assert VALIDATION_DOMAINS[0] not in DOMAINS
