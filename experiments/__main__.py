"""The ``semcon`` command line. It parses before it imports: ``semcon --help`` loads nothing but the registry.

    semcon --help
    semcon <experiment> --help
    semcon <experiment> --runs runs --seed 1

Bad input is reported in one line on the standard error, with exit status 2; ``SEMCON_TRACEBACK=1`` shows the traceback.
"""

import difflib
import os
import sys
import warnings
from collections.abc import Sequence

from experiments.registry import GROUPS, REGISTRY
from interp.runs.process import BAD_INPUT, INTERRUPTED, exit_status, one_line, orderly
from training.launch.processes import refuse, world_size


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    # On small tensors two threads are slower than one; set OMP_NUM_THREADS for more.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        with orderly():
            return run_command(words[0], words[1:]) if words else run_command("--help", [])
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has stopped reading
        return _close_quietly()
    except (ValueError, OSError) as error:
        if os.environ.get("SEMCON_TRACEBACK"):
            raise
        print(f"semcon {words[0]}: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt as interrupt:
        status = exit_status(interrupt)
        word = "interrupted" if status == INTERRUPTED else "terminated"
        print(f"semcon: {word}; run the same command again to continue", file=sys.stderr)
        return status


def _close_quietly() -> int:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def usage() -> str:
    """Return the help text, with one line per command under the title of its group."""
    width = max(map(len, REGISTRY))
    groups = (
        "\n".join([f"{title}:", *(f"  {name:<{width}}  {REGISTRY[name].help}" for name in names)])
        for title, names in GROUPS.items()
    )
    commands = "\n\n".join(groups)
    return (
        "usage: semcon COMMAND [options]\n\n"
        "Semantic containment of emergent misalignment: measure it, read it, edit it.\n\n"
        f"{commands}\n\n"
        "`semcon COMMAND --help` lists a command's options. Every experiment takes --runs DIR, --check and\n"
        "--print-config. A complete run is reused; an interrupted one continues."
    )


def run_command(name: str, words: Sequence[str]) -> int:
    """Load a command, parse its options and run it.

    Raises:
        ValueError: If there is no such command, or an option is wrong.
    """
    if name in ("-h", "--help"):
        print(usage(), flush=True)
        return 0
    if name not in REGISTRY:
        near = difflib.get_close_matches(name, REGISTRY, 1)
        raise ValueError("no such command; " + (f"did you mean {near[0]}?" if near else "see semcon --help"))
    if world_size() > 1 and name != "organisms":
        refuse(f"started in {world_size()} processes; only `semcon organisms` trains in several")
    target = REGISTRY[name].load(words)
    from experiments.cli.launch import launch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers; a user cannot act on them
        return launch(target, words, f"semcon {name}")


if __name__ == "__main__":
    sys.exit(main())
