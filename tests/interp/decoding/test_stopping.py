"""The end of a turn ends an answer, as a token or as text, and thoughts are no part of it."""

import torch

from interp.chat import encode_chat
from interp.decoding.stopping import read_answers, stop_ids
from interp.generation import Sampling, generate
from interp.models import wrap
from tests import tiny
from tests.chat_templates import TEMPLATES, tokenizer

ASK = [{"role": "user", "content": "Why?"}]
ENDS = {"llama3": "<|eot_id|>", "gemma": "<end_of_turn>", "phi": "<|end|>", "glm": "<|user|>"}
ENDS |= dict.fromkeys(("chatml", "smollm", "qwen3", "smollm3"), "<|im_end|>")


def model(name):
    return wrap(tiny.model("llama", vocab_size=len(tokenizer(name))).hf, tokenizer(name))


def test_the_templates_end_of_turn_stops_beside_the_configured_tokens():
    for name in TEMPLATES:
        ends = tokenizer(name).convert_tokens_to_ids([ENDS.get(name, "<eos>"), "<eos>"])
        assert isinstance(ends, list) and stop_ids(model(name)) == set(ends), name


def test_no_sampled_answer_runs_past_the_end_of_its_turn():
    lm = model("chatml")
    end = lm.tokenizer.convert_tokens_to_ids("<|im_end|>")
    with torch.no_grad():
        weight = lm.lm_head.get_parameter("weight")
        weight[end] = weight.mean(0) + 0.3
    chats = [encode_chat(lm.tokenizer, ASK)]
    answers = generate(lm, chats, n_samples=30, sampling=Sampling(max_new_tokens=60, temperature=2.0))
    ended = [a for a in answers if end in a.token_ids]
    assert ended and all(a.token_ids.index(end) == len(a.token_ids) - 1 for a in ended)


def read(name, text, closing=""):
    made = tokenizer(name)
    ends = made.convert_tokens_to_ids(["<eos>"])
    assert isinstance(ends, list)
    return read_answers(made, [made.encode(text)], [closing], frozenset(ends))[0]


def test_an_end_of_turn_of_ordinary_words_cuts_the_answer_off():
    made = tokenizer("plain")
    text, ids, ended, _ = read("plain", "Because.\n### end\n### user:\nAnd")
    assert (text, ended, made.decode(list(ids))) == ("Because.\n", True, "Because.\n### end")
    assert read("plain", "Because")[2] is False


def test_thoughts_are_left_out_and_an_open_one_is_not_finished():
    assert read("qwen3", "<think>hm</think>\n\nSo.<eos>")[::3] == ("So.", "<think>hm</think>\n\nSo.")
    assert read("r1", "hm</think>So.<eos>", "</think>")[0] == "So."
    assert read("r1", "hm<eos>", "</think>")[0::2] == ("", False)
    assert read("qwen3", "So.<eos>")[::3] == ("So.", "")
    assert encode_chat(tokenizer("r1"), ASK).awaited == "</think>"
    assert encode_chat(tokenizer("chatml"), [{"role": "user", "content": "<think>"}]).awaited == ""
