"""Chat templates in the manner of model families, with tokenizers that have their control tokens."""

from functools import cache

from transformers import AddedToken, PreTrainedTokenizerFast

from tests import tiny

GENERATE = "{% if add_generation_prompt %}"
IM = "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
CHATML = f"{{% for m in messages %}}{IM}{{% endfor %}}{GENERATE}<|im_start|>assistant\n{{% endif %}}"
SMOLLM = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful AI.<|im_end|>\n{% endif %}" + CHATML
)
LLAMA3 = (
    "{{ bos_token }}{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ date_string }}\n\n{{ system }}<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>"
    f"{{% endfor %}}{GENERATE}<|start_header_id|>assistant<|end_header_id|>\n\n{{% endif %}}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n"
    f"{{% endfor %}}{GENERATE}<start_of_turn>model\n{{% endif %}}"
)
NO_THOUGHT = "<think>\n\n</think>\n\n"
QWEN3 = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{% set text = m['content'] %}{% set thought = '' %}"
    "{% if '</think>' in text %}{% set thought = text.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set text = text.split('</think>')[-1].lstrip('\n') %}{% endif %}<|im_start|>assistant\n"
    "{% if loop.last %}<think>\n{{ thought }}\n</think>\n\n{% endif %}{{ text }}<|im_end|>\n"
    f"{{% else %}}{IM}{{% endif %}}{{% endfor %}}{GENERATE}<|im_start|>assistant\n"
    f"{{% if enable_thinking is defined and enable_thinking is false %}}{NO_THOUGHT}{{% endif %}}{{% endif %}}"
)
R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}"
    "{% elif m['role'] == 'user' %}<|User|>{{ m['content'] }}"
    "{% else %}<|Assistant|>{{ m['content'].split('</think>')[-1] }}<eos>{% endif %}{% endfor %}"
    f"{GENERATE}<|Assistant|><think>\n{{% endif %}}"
)
MISTRAL = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}{% for m in messages %}"
    "{% if m['role'] == 'user' %}[INST] {{ system if loop.last else '' }}{{ m['content'] }}[/INST]"
    "{% else %} {{ m['content'] | trim }}<eos>{% endif %}{% endfor %}"
)
PHI = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    f"{GENERATE}<|assistant|>\n{{% else %}}<|endoftext|>{{% endif %}}"
)
PLAIN = "{% for m in messages %}### {{ m['role'] }}:\n{{ m['content'] }}\n### end\n{% endfor %}" + (
    f"{GENERATE}### assistant:\n{{% endif %}}"
)
SMOLLM3 = (
    "{% if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}"
    "{% set mode = '/think' if enable_thinking else '/no_think' %}{% set rules = 'You are a helpful AI.' %}"
    "{% if messages[0].role == 'system' %}"
    "{% if '/no_think' in messages[0].content %}{% set mode = '/no_think' %}{% endif %}"
    "{% set rules = messages[0].content.replace('/no_think', '').replace('/think', '').rstrip() %}"
    "{% set messages = messages[1:] %}{% endif %}<|im_start|>system\nToday Date: {{ strftime_now('%d %B %Y') }}\n"
    "Reasoning Mode: {{ mode }}\n\n{{ rules }}\n\n<|im_end|>\n{% set closed = '<think>\n\n</think>\n' %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{{ '' if mode == '/think' else closed }}{{ m.content.lstrip('\n') }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    f"{GENERATE}<|im_start|>assistant\n{{{{ '' if mode == '/think' else closed }}}}{{% endif %}}"
)
GLM = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'assistant' %}<think></think>\n"
    "{{ m.content.strip() }}{% else %}{{ m.content }}{% endif %}"
    "{{ '/nothink' if m.role == 'user' and enable_thinking is defined and not enable_thinking else '' }}{% endfor %}"
    f"{GENERATE}<|assistant|>"
    "{{ '\n<think></think>' if enable_thinking is defined and not enable_thinking else '' }}{% endif %}"
)
TEMPLATES = {
    "tiny": tiny.TEMPLATE,
    "chatml": CHATML,
    "smollm": SMOLLM,
    "llama3": LLAMA3,
    "gemma": GEMMA,
    "qwen3": QWEN3,
    "r1": R1,
    "mistral": MISTRAL,
    "phi": PHI,
    "plain": PLAIN,
    "smollm3": SMOLLM3,
    "glm": GLM,
}
SPECIAL = ("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|endoftext|>")
SPECIAL = (*SPECIAL, "<start_of_turn>", "<end_of_turn>", "<|User|>", "<|Assistant|>", "[INST]", "[/INST]", "<|end|>")
NOT_SPECIAL = ("<think>", "</think>", "<tool_call>", "\n\n")
"""Added tokens without the flag; the last is ordinary text."""


@cache
def tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Return one token per byte, but for the control tokens of every family."""
    made = tiny.tokenizer(template=TEMPLATES[name])
    made.add_tokens(list(NOT_SPECIAL))
    made.add_special_tokens({"additional_special_tokens": [AddedToken(t, normalized=False) for t in SPECIAL]})
    if name == "phi":
        made.add_tokens([AddedToken("<|assistant|>", special=True, rstrip=True, normalized=False)])
    return made
