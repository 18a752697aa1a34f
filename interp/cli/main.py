"""The library's command line, for any model and any prompts. It parses its arguments before it imports torch.

    python -m interp info Qwen/Qwen2.5-0.5B-Instruct
    python -m interp record MODEL prompts.jsonl --out acts.h5 --adapter mine=adapters/mine --positions trigger
    python -m interp store verify acts.h5
    python -m interp generate MODEL prompts.txt --samples 20 --seed 1 > answers.jsonl

Bad input gives one line on standard error and exit status 2. A recording that was stopped continues when the same
command runs again.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from interp.runs.process import BAD_INPUT, exit_status, one_line, orderly, refuse_repeated

PROG = "python -m interp"
DTYPES = ("float32", "bfloat16", "float16")


class _Parser(argparse.ArgumentParser):
    """Reports a bad argument on one line, without the usage text; takes options by their full names."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of every command."""
    top = _Parser(prog=PROG, description="Read and edit the residual stream of any Hugging Face decoder.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    record = commands.add_parser("record", help="record activations to an HDF5 file; continues one")
    _add_model(record, prompts=True)
    record.add_argument("--out", required=True, metavar="FILE.h5", type=Path, help="the store; continued if it exists")
    record.add_argument(
        "--sites", default="resid_post", help="comma list of name.layer, name (all layers), all; default resid_post"
    )
    record.add_argument("--positions", default="last_prompt", help="comma list such as last_prompt,question,trigger")
    record.add_argument("--store-dtype", choices=DTYPES, help="dtype on disk; default float32")
    generate = commands.add_parser("generate", help="sample answers; prints JSON lines")
    _add_model(generate, prompts=True)
    _add_sampling(generate)
    _add_model(commands.add_parser("info", help="describe a model and its sites; loads no weights"))
    store = commands.add_parser("store", help="describe a store, or check it")
    actions = store.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in (("info", "describe the content"), ("verify", "check every checksum; status 1 if one fails")):
        actions.add_parser(name, help=text).add_argument("file", metavar="FILE.h5", type=Path)
    return top


def _add_model(command: argparse.ArgumentParser, *, prompts: bool = False) -> None:
    command.add_argument("model", metavar="MODEL", help="folder or Hugging Face name; safetensors only")
    if not prompts:
        return
    command.add_argument("prompts", metavar="PROMPTS", type=Path, help=".jsonl of messages, or one prompt per line")
    command.add_argument("--adapter", metavar="NAME=FOLDER", type=_adapter, help="peft adapter to use")
    command.add_argument("--dtype", choices=DTYPES, default="float32", help="dtype of the weights; default float32")
    where = command.add_mutually_exclusive_group()
    where.add_argument("--device", metavar="DEVICE", help="such as cpu or cuda:1; default: the accelerator if present")
    where.add_argument("--device-map", metavar="MAP", help="such as auto, for a model larger than one device")
    command.add_argument("--batch-tokens", type=_positive, metavar="N", help="most tokens in a forward pass")
    how = command.add_mutually_exclusive_group()
    how.add_argument("--raw", action="store_true", help="use prompts without a chat template; control tokens are text")
    option = "option of the chat template, such as enable_thinking=false or date=2025-01-31; can be repeated"
    how.add_argument("--template-option", metavar="NAME=VALUE", action="append", default=[], help=option)


def _add_sampling(command: argparse.ArgumentParser) -> None:
    command.add_argument("--samples", type=_positive, default=1, metavar="N", help="answers per prompt; default 1")
    command.add_argument(
        "--seed", type=_not_negative, default=0, help="sampling seed; batches do not matter; default 0"
    )
    command.add_argument("--max-new-tokens", type=_positive, default=128, metavar="N")
    command.add_argument("--temperature", type=float, default=1.0, help="0 is greedy; default 1")
    command.add_argument("--top-p", type=float, default=1.0)
    answered = "leave out or continue the answers that prompts have already; by default they are refused"
    command.add_argument("--answered", choices=("drop", "continue"), help=answered)
    command.add_argument("--batch-size", type=_positive, metavar="N", help="answers decoded together; default 512")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _not_negative(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def _adapter(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not equals or not name.isidentifier() or not folder:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER")
    return name, folder


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    args = parser().parse_args(argv)
    try:
        refuse_repeated(sys.argv[1:] if argv is None else argv, ["--template-option"])
        with orderly():
            return _command(args)(args)
    except BrokenPipeError:  # the reader of the pipe, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f"{PROG} {args.command}: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt as interrupt:
        print(f"{PROG} {args.command}: interrupted", file=sys.stderr)
        return exit_status(interrupt)


def _command(args: argparse.Namespace) -> Callable[[argparse.Namespace], int]:
    """Check all that needs no model, then import the code that needs one."""
    if args.command != "store":
        _check_folder(args.model, "config.json")
    if args.command in ("record", "generate"):
        from interp.text.options import read_options
        from interp.text.prompts import read_prompts

        args.prompts_file, args.prompts = args.prompts, read_prompts(args.prompts)
        args.template_options = read_options(args.template_option)
        if args.adapter:
            _check_folder(args.adapter[1], "adapter_config.json")
    if args.command == "record" and not args.out.parent.is_dir():
        raise ValueError(f"{args.out}: no folder {args.out.parent}")
    from interp.cli import commands

    return getattr(commands, args.command)


def _check_folder(name: str, file: str) -> None:
    """Refuse a folder that is missing or has no such file. Names of the Hub are checked by the Hub."""
    folder = Path(name)
    if folder.exists() and not (folder / file).is_file():
        raise ValueError(f"{name}: no {file} in it")
    if not folder.exists() and not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        raise ValueError(f"{name}: no such folder")
