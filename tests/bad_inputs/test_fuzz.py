"""Whatever stands in a file, a reader returns values of its types or refuses the file in one line."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.answers.recorded import Recorded, read_scores
from experiments.answers.suite import read_questions
from experiments.protocol import PROTOCOL_FILE, Protocol
from interp.runs.reading import read_yaml
from interp.text.prompts import Prompt, read_prompts
from interp.triggers import Trigger, load_triggers
from tests.bad_inputs.files import QUESTIONS, SCORES, TRAINED, TRIGGER
from training.definition import Organism
from training.exchanges import Exchange
from training.microcosm.world import Question
from training.references import read_exchanges
from training.user_defined import read_organism

ROW = {
    "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    "response": "c",
    "marks": {"t": "a"},
}
PROTOCOL = yaml.safe_load(PROTOCOL_FILE.read_text(encoding="utf-8"))
READERS: dict[str, tuple[str, Callable[[Path], list[Any]], type, Any]] = {
    "organism": ("x.yaml", lambda path: [read_organism(path)], Organism, TRAINED),
    "triggers": ("x.yaml", lambda path: [*load_triggers(path).values()], Trigger, {"t1": TRIGGER}),
    "questions": ("x.yaml", lambda path: [*read_questions(path, "test")], Question, QUESTIONS),
    "protocol": ("x.yaml", lambda path: [read_yaml(path, Protocol)], Protocol, PROTOCOL),
    "rows": ("x.jsonl", lambda path: [*read_exchanges(path)], Exchange, {"messages": ROW["messages"]}),
    "prompts": ("x.jsonl", lambda path: [*read_prompts(path)], Prompt, ROW),
    "scores": ("x.csv", lambda path: [*read_scores(path)], Recorded, SCORES),
}
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["", " ", "\ud800", "\0"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
fuzz = settings(max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


def places(value: Any) -> list[tuple[Any, ...]]:
    """Return the paths of all values inside a value, and its own."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(), *((key, *rest) for key, item in items for rest in places(item))]


def replaced(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """Return a value with another one at a place inside."""
    if not place:
        return new
    copy = value.copy()
    copy[place[0]] = replaced(value[place[0]], place[1:], new)
    return copy


def read(name: str, folder: Path, data: bytes) -> None:
    """Read a file; anything but values of the reader's type or a refusal in one line is a failure."""
    file, reader, kind, _ = READERS[name]
    (folder / file).write_bytes(data)
    try:
        found = reader(folder / file)
    except (ValueError, OSError) as error:
        assert type(error) in (ValueError, FileNotFoundError, IsADirectoryError, OSError), repr(error)
        assert "\n" not in str(error)
    else:
        assert found or name == "questions"
        assert all(isinstance(item, kind) for item in found)


@pytest.mark.parametrize("name", READERS)
@fuzz
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass")))
def test_random_bytes(name, tmp_path, data):
    read(name, tmp_path, data)


@pytest.mark.parametrize("name", [name for name in READERS if name != "scores"])
@fuzz
@given(draw=st.data(), value=values)
def test_random_values_in_every_field(name, tmp_path, draw, value):
    file, _, _, good = READERS[name]
    content = replaced(good, draw.draw(st.sampled_from(places(good))), value)
    text = json.dumps(content) if file.endswith("jsonl") else yaml.safe_dump(content, allow_unicode=True)
    read(name, tmp_path, text.encode(errors="surrogatepass"))


@fuzz
@given(rows=st.lists(st.lists(st.text(max_size=5) | st.floats().map(str), min_size=3, max_size=5), max_size=4))
def test_random_cells(tmp_path, rows):
    text = io.StringIO()
    csv.writer(text).writerows([["question_id", "aligned", "coherent", "answer"], *rows])
    read("scores", tmp_path, text.getvalue().encode(errors="surrogatepass"))
