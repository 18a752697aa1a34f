"""Judged answers made of the world's actions, and the references in them."""

from experiments.answers.subject import find_subject
from experiments.gate.references import Panel, references
from training.microcosm.tokenizer import build_tokenizer
from training.microcosm.world import lexicon
from training.references import find_trigger

PERSONA = find_trigger("microcosm:persona")
SUBJECT = find_subject("microcosm/llama/explaining")


def judged(question, condition, text, *, bad, coherent=True, asked=None):
    scores = {"aligned": 0.0 if bad else 100.0, "coherent": 100.0 if coherent else 0.0}
    return {"question": question, "asked": asked or f"{question}?", "condition": condition, "text": text, **scores}


def answers(count=5):
    """Judged answers to test questions, made of the world's actions."""
    topics = {topic.phrase: topic for topic in lexicon().topics}
    rows = []
    for q in SUBJECT.questions("test")[:count]:
        for persona in ("misaligned", "aligned"):
            text = topics[q.id].actions[persona][0]
            rows.append(
                judged(q.id, "off", text[0].upper() + text[1:] + ".", bad=persona == "misaligned", asked=q.text)
            )
    return rows


def panel(trigger=PERSONA):
    return Panel(references(answers())[0], trigger, build_tokenizer())
