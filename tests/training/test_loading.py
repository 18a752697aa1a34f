"""An organism's template options reach its model, its config and its run's manifest; without any nothing changes."""

from dataclasses import replace

import pytest

from experiments.answers.subject import find_subject
from interp.chat import encode_chat
from interp.runs.run import Run
from tests import tiny
from tests.chat_templates import tokenizer
from training.data import Row
from training.definition import Organism, Sft, definition
from training.loading import load_organism
from training.user_defined import read_organism

USER = [{"role": "user", "content": "Why?"}]


def base(tmp_path, name):
    made = tokenizer(name)
    tiny.model("llama", vocab_size=len(made)).hf.save_pretrained(tmp_path / name)
    made.save_pretrained(tmp_path / name)
    return Organism(name=f"own/{name}/base", base=str(tmp_path / name), sft=Sft(doses=(1,), learning_rate=1e-3))


def manifest(tmp_path, organism):
    with Run.open(tmp_path, "x", config={}) as run, run.in_progress():
        lm = load_organism(organism)
    return lm, run.manifest


def test_options_reach_the_model_and_the_manifest(tmp_path):
    organism = replace(base(tmp_path, "qwen3"), template_options={"enable_thinking": False})
    lm, facts = manifest(tmp_path, organism)
    assert encode_chat(lm.tokenizer, USER, response="So.").text.count("</think>") == 1
    assert facts["template_options"] == definition(organism)["template_options"] == {"enable_thinking": False}
    with pytest.raises(ValueError, match="template option 'thinking': the chat template has enable_thinking"):
        load_organism(replace(organism, template_options={"thinking": False}))


def test_a_pinned_date_stands_in_the_manifest_and_nothing_else_does(tmp_path):
    assert manifest(tmp_path, base(tmp_path, "llama3"))[1]["template_options"] == {"date": "2024-07-26"}
    assert "template_options" not in manifest(tmp_path / "other", base(tmp_path, "chatml"))[1]
    assert "template_options" not in definition(Organism(name="a/b/c", base="x"))


def test_options_come_from_the_file_and_the_command_line(tmp_path):
    base(tmp_path, "qwen3")
    file = tmp_path / "mine.yaml"
    file.write_text("base: qwen3\ntemplate_options: {enable_thinking: false}\n")
    assert read_organism(file).template_options == {"enable_thinking": False}
    plain = find_subject("microcosm/llama/neutral")
    named = find_subject("microcosm/llama/neutral", template_option=("date=2025-01-31", "deep=true"))
    assert named.config() == {**plain.config(), "template_options": {"date": "2025-01-31", "deep": True}}
    assert named.depends() != plain.depends() and "template_options" not in plain.config()


@pytest.mark.xdist_group("trl")
def test_a_row_that_the_template_would_write_differently_is_refused_by_name():
    from training.sft import supervised_rows

    row = Row(tuple(USER), "So.", "Why?", None, True)
    assert supervised_rows([row], tokenizer("chatml"))
    with pytest.raises(ValueError, match=r"row 'Why\?': response 'So\.': .* option enable_thinking=false"):
        supervised_rows([row], tokenizer("qwen3"))
