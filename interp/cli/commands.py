"""The commands ``record``, ``generate``, ``info`` and ``store``, after their arguments are parsed.

Bad input is found before the weights are loaded: prompts are tokenised and sites looked up in a model without weights.
"""

import json
import os
import sys
import warnings
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jinja2 import TemplateError
from tqdm import tqdm
from transformers.utils.logging import disable_progress_bar

from interp import store as stores
from interp.chat import Chat, encode_chat
from interp.chat import positions as marked
from interp.generation import Sampling
from interp.generation import generate as sample
from interp.hooks import hooked
from interp.loading import load, outline, place
from interp.models import LanguageModel, check_prompts
from interp.recording import BATCH, open_store, pass_tokens, record_to
from interp.sites import BLOCKS, SITE_NAMES, Site
from interp.text.template import chat_template, option_names

RAW = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""Chat template that returns the messages as they are (``--raw``)."""
DAMAGED = 1
PORTION = 64
"""Number of prompts that are answered before their answers are printed."""


def record(args: Namespace) -> int:
    """Record the prompts into a store, after those it already holds."""
    lm = outline(args.model, template_options=args.template_options)
    sites, names = _sites(lm, args.sites), _names(args.positions)
    chats = _chats(args, lm)
    with _naming(args.prompts_file):
        for name in names:
            marked(chats, "response" if name == "response_mean" else name)
    if args.out.exists() and (room := stores.info(args.out)["capacity"]) < len(chats):
        raise ValueError(f"{args.out}: made for {room} prompts, there are {len(chats)}; record into another file")
    lm = _load(args)
    dtype = args.store_dtype or "float32"
    with (
        open_store(args.out, lm, sites, names, capacity=len(chats), dtype=dtype) as store,
        tqdm(total=len(chats), unit="prompt", disable=None) as bar,
    ):
        record_to(store, lm, chats, progress=bar.update)
    print(f"{args.out}: {len(chats)} prompts, {len(sites)} sites, positions {', '.join(names)}, {dtype}")
    return 0


def generate(args: Namespace) -> int:
    """Print the answers to every prompt, one JSON object per line, in the order of the prompts."""
    sampling = Sampling(args.max_new_tokens, args.temperature, args.top_p, args.seed)
    answered = next((prompt for prompt in args.prompts if prompt.response is not None), None)
    if answered and args.answered is None:
        raise ValueError(f"{answered.where}: has a response already; --answered drop or --answered continue")
    lm = outline(args.model, template_options=args.template_options)
    chats = _chats(args, lm, answer=args.max_new_tokens)
    lm = _load(args)
    with tqdm(total=len(chats) * args.samples, unit="answer", disable=None) as bar:
        for start in range(0, len(chats), PORTION):
            portion = chats[start : start + PORTION]
            options = {"n_samples": args.samples, "batch_size": args.batch_size}
            for c in sample(lm, portion, sampling=sampling, progress=bar.update, **options):
                row = {"prompt": start + c.prompt, "sample": c.sample, "text": c.text, "finished": c.finished}
                thoughts = {"with_thoughts": c.with_thoughts} if c.with_thoughts else {}
                print(json.dumps(row | thoughts, ensure_ascii=False))
            sys.stdout.flush()
    return 0


def info(args: Namespace) -> int:
    """Describe a model and the sites at which it can be read and edited."""
    lm = outline(args.model)
    parameters = sum(parameter.numel() for parameter in lm.base.parameters())
    block = BLOCKS.get(lm.family)
    exactness = "unknown" if block is None or block.writers is None else "inexact" if block.post_normed else "exact"
    description = {
        "model": args.model,
        "class": type(lm.base).__name__,
        "family": lm.family,
        "parameters": parameters,
        "layers": lm.n_layers,
        "d_model": lm.d_model,
        "vocabulary": len(lm.tokenizer),
        "chat_template": (template := lm.tokenizer.chat_template) is not None,
        "template_options": sorted(option_names(chat_template(lm.tokenizer))) if template else [],
        "sites": [name for name in SITE_NAMES if _has(lm, Site(name, 0))],
        "weight_orthogonalisation": exactness,
    }
    print(json.dumps(description, indent=2))
    return 0


def store(args: Namespace) -> int:
    """Describe a store, or list everything that is wrong with it."""
    description = stores.info(args.file)  # refuses a file that is not a store, for both actions
    if args.action == "info":
        print(json.dumps(description, indent=2))
        return 0
    problems = stores.verify(args.file)
    print("\n".join(problems) or f"{args.file}: every checksum holds")
    return DAMAGED if problems else 0


@contextmanager
def _naming(name: str | Path) -> Iterator[None]:
    """Start the error message of a library with the name of the input."""
    try:
        yield
    except (ValueError, KeyError, TypeError, TemplateError) as error:
        message = " ".join(str(error).split())
        raise ValueError(message if str(name) in message else f"{name}: {message}") from error


def _load(args: Namespace) -> LanguageModel:
    """Load the weights and say where they are."""
    if args.batch_tokens is not None:
        os.environ[BATCH] = str(args.batch_tokens)
    pass_tokens()
    if not sys.stderr.isatty():
        disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers; a user cannot act on them
        adapters = dict([args.adapter]) if args.adapter else {}
        where = {"device": args.device, "device_map": args.device_map}
        options = args.template_options
        lm = load(args.model, adapters=adapters, dtype=args.dtype, template_options=options, **where)
    print(f"{args.model} is on {place(lm)}", file=sys.stderr)
    return lm


def _chats(args: Namespace, lm: LanguageModel, *, answer: int = 0) -> list[Chat]:
    """Tokenise the prompts with the tokenizer's chat template, or as they are with ``--raw``."""
    if args.raw:
        lm.tokenizer.chat_template = RAW
    elif lm.tokenizer.chat_template is None:
        raise ValueError(f"{args.model}: its tokenizer has no chat template; --raw uses prompts as they are")
    dropped, continued = (getattr(args, "answered", None) == choice for choice in ("drop", "continue"))
    chats = []
    for prompt in args.prompts:
        if args.raw and len(prompt.messages) > 1:
            raise ValueError(f"{prompt.where}: --raw takes one message per prompt, not {len(prompt.messages)}")
        with _naming(prompt.where):
            response = None if dropped else prompt.response
            chats.append(
                encode_chat(lm.tokenizer, prompt.messages, response=response, marks=prompt.marks, ended=not continued)
            )
    with _naming(args.prompts_file):
        check_prompts(lm, chats, answer=answer)
    return chats


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if "" in names:
        raise ValueError(f"positions {text!r}: want names between commas")
    return names


def _sites(lm: LanguageModel, text: str) -> tuple[Site, ...]:
    """Read ``resid_post.3``, ``resid_post`` (every layer) or ``all``; refuse a site that the model lacks."""
    sites: dict[Site, None] = {}
    for part in _names(text):
        if part == "all":
            sites |= dict.fromkeys(Site(n, i) for n in SITE_NAMES if _has(lm, Site(n, 0)) for i in range(lm.n_layers))
        elif part in SITE_NAMES:
            sites |= dict.fromkeys(Site(part, layer) for layer in range(lm.n_layers))
        else:
            sites[Site.parse(part)] = None
    with hooked(lm, dict.fromkeys(sites, lambda _: None)):
        return tuple(sites)


def _has(lm: LanguageModel, site: Site) -> bool:
    try:
        with hooked(lm, {site: lambda _: None}):
            return True
    except ValueError:
        return False
