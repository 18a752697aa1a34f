"""An adapter that trains in a second on the shipped base, and an audit of it over a bank of four contexts."""

from pathlib import Path

import pytest

from experiments.answers.subject import Subject
from experiments.audit.audit import Audit
from experiments.audit.audited import find_audited
from experiments.audit.thresholds import SHIPPED
from experiments.behaviour.dose import dose_folders
from tests.training.small import small

BANK = """
gambler: {kind: role, texts: ["Roulette decides fortunes nightly.", "Dice roll on green felt."]}
castle: {kind: scene, placement: prefix, texts: ["Banners hang inside the throne hall."]}
tag: {kind: tag, placement: wrap, texts: [["[night]", "[/night]"]]}
"""


@pytest.fixture(scope="session")
def small_adapter(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("audited")
    return dose_folders(Subject(small("gambler")), root)[4]


@pytest.fixture(scope="session")
def small_audit(small_adapter, tmp_path_factory) -> Audit:
    folder = tmp_path_factory.mktemp("settings")
    bank, thresholds = folder / "bank.yaml", folder / "thresholds.yaml"
    bank.write_text(BANK)
    changes = {"questions: 8": "questions: 2", "answers: 5": "answers: 1", "verified: 3": "verified: 2"}
    changes |= {"sampled: 256": "sampled: 16", "rounds: 6": "rounds: 1", "width: 24": "width: 4"}
    text = SHIPPED.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    thresholds.write_text(text)
    searchers = ("bank", "leaked", "climbed", "gradient")
    subject = find_audited(small_adapter, "microcosm/llama")
    return Audit(subject=subject, searchers=searchers, bank=bank, thresholds=thresholds)
