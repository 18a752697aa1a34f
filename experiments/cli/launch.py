"""Parse the options of a command and run it. Imported once the command is known."""

import contextlib
import dataclasses
import functools
import inspect
import io
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from experiments.cli.placement import Placement
from experiments.protocol import protocol_file
from experiments.spec import Experiment, probe, run_experiment
from interp.runs.checks import value_faults
from interp.runs.configs import jsonable
from interp.runs.files import check_room
from interp.runs.process import refuse_repeated
from interp.runs.run import Run, runs_root
from interp.runs.table import Row

FIGURES: dict[str, tuple[str, ...]] = {
    "audit": (),
    "probe": ("probe_auroc",),
    "probe_apply": ("probe_auroc",),
    "steer_vector": ("dose_response", "preference_steering"),
}
"""Figures that are drawn at once, by experiment; of any other `semcon figure` or `semcon report` draws them."""
FILES = (".safetensors", ".md", ".csv")
"""Outputs beside the table that a command names at its end."""
REPEATED = (("", "--template-option"), ("semcon figure", "--organism"))
"""Options that can be given several times, in any command or in one; of any other the last would count, and the first
be dropped."""
E = TypeVar("E", bound=Experiment)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Options(Generic[E]):
    """An experiment's own options and those all experiments share."""

    experiment: Annotated[E, tyro.conf.arg(name="")]
    runs: Path = dataclasses.field(default_factory=runs_root)
    """Folder of all runs."""
    place: Annotated[Placement, tyro.conf.arg(name="")] = Placement()  # noqa: RUF009
    print_config: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the config as JSON and stop."""
    check: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Check the options, the organism, its questions and its judge, and stop."""


def launch(target: Any, words: Sequence[str], prog: str) -> int:
    """Parse the options of a command, run it and return its exit status.

    Args:
        target: An ``Experiment`` class, another dataclass with ``main()``, or a function.
        words: The command line after the command's name.
        prog: The command as typed, for its help.

    Raises:
        ValueError: If an option is wrong.
    """
    with protocol_file(named_protocol(words)):  # here, because the defaults of options come from the protocol
        return _launched(target, words, prog)


def named_protocol(words: Sequence[str]) -> Path | None:
    """Return the file that a command line names with ``--protocol``; None without one."""
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == "--protocol":
            given = [value] if equals else words[i + 1 : i + 2]
            return Path(given[0]) if given else None
    return None


def _launched(target: Any, words: Sequence[str], prog: str) -> int:
    if isinstance(target, type) and issubclass(target, Experiment):
        return run_configured(parse(Options[target], words, prog, about=target))
    if isinstance(target, type):
        command = parse(target, words, prog, about=target)
        getattr(command, "place", Placement()).apply()
        status = command.main()
    else:
        status = parse(_deferred(target), words, prog, about=target)()
    return status if isinstance(status, int) else 0


def _deferred(function: Callable[..., T]) -> Callable[..., Callable[[], T]]:
    """Return a function of the same signature that only checks and binds its arguments.

    So ``parse`` does not catch what the command itself prints.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def bind(*args: Any, **options: Any) -> Callable[[], T]:
        given = signature.bind(*args, **options)
        if faults := value_faults(function, given.arguments):
            raise ValueError("; ".join(faults))
        return functools.partial(function, *given.args, **given.kwargs)

    return bind


def run_configured(options: Options[Experiment]) -> int:
    """Run an experiment and print its table, unless only its config or a check is wanted."""
    options.place.apply()
    experiment = options.experiment.resolved()
    if options.print_config:
        print(json.dumps(jsonable(experiment.config()), indent=2))
        return 0
    if options.check:
        experiment.check()
        check_room(options.runs)
        probe(experiment)
        print(f"{experiment.title()}: can be run")
        return 0
    run, table = run_experiment(experiment, options.runs)
    from figures.answer import answer  # figures draw with matplotlib, which --help does without

    print(f"{answer(table)}\n\n{len(table)} rows in {run.path / 'table.csv'}")
    own = run.experiment in FIGURES
    files = [run.path / n for n in run.manifest["outputs"] if own and Path(n).suffix in FILES and n != "table.csv"]
    print("".join(f"{path}\n" for path in [*files, *_pictures(run, table)]), end="")
    return 0


def _pictures(run: Run, table: Sequence[Row]) -> list[Path]:
    """Draw the figures of an experiment about a user's own data or direction, beside the runs; return the PDFs."""
    from figures.plots import BY_NAME
    from figures.redraw import redraw

    plots = [BY_NAME[name] for name in FIGURES.get(run.experiment, ())]
    stem = run.path.parents[1] / "figures" / run.run_id
    drawn = [redraw(p, table, stem.with_name(f"{stem.name}-{p.name}")) for p in plots if p.module().wanted(table)]
    return [path for paths in drawn for path in paths if path.name.endswith(".pdf")]


def parse(target: Callable[..., T], words: Sequence[str], prog: str, *, about: Any) -> T:
    """Return ``target`` called with the options in ``words``; ``--help`` prints the docstring of ``about`` and exits.

    Raises:
        ValueError: If an option is wrong; one line.
    """
    description = (inspect.getdoc(about) or "").split("\n\nArgs:")[0]
    refuse_repeated(words, [option for command, option in REPEATED if command in ("", prog)])
    for before, word in itertools.pairwise(["", *words]):
        if not word.strip() or (word.startswith("--") and word.endswith("=")):
            raise ValueError(f"{word.strip() or before or 'the first value'}: expected a value that is not blank")
    help_text, errors = io.TextIOWrapper(io.BytesIO(), encoding=sys.stdout.encoding or "utf-8"), io.StringIO()
    with contextlib.redirect_stdout(help_text), contextlib.redirect_stderr(errors), _whole_sentences():
        try:
            return tyro.cli(target, args=list(words), prog=prog, description=description)
        except SystemExit as stop:
            status = stop.code
    if status:
        raise ValueError(_first_message(errors.getvalue()))
    help_text.seek(0)
    print(_without_none(help_text.read()), end="")
    raise SystemExit(0)


@contextlib.contextmanager
def _whole_sentences() -> Iterator[None]:
    """Let tyro join the lines of a field's docstring: it takes indented lines for paragraphs of their own.

    The function is private to tyro; without it, help is the same with odd line breaks.
    """
    library: Any = getattr(tyro, "_strings", None)
    if not (theirs := getattr(library, "remove_single_line_breaks", None)):
        yield
        return
    library.remove_single_line_breaks = lambda text: theirs(inspect.cleandoc(text))
    try:
        yield
    finally:
        library.remove_single_line_breaks = theirs


def _without_none(text: str) -> str:
    """Return a help text without "(default: None)": what no value means is in the words before it."""
    blank = re.sub(r"\(default:[ │\n]+None\)", lambda hint: re.sub(r"[^│\n]", " ", hint[0]), text)
    return re.sub(r"(?<=│\n)│ +│\n", "", blank)


def _first_message(panel: str) -> str:
    """Return the message in tyro's error panel: the text between its title and the next rule, without the frame."""
    lines = [line.strip("│ ") for line in panel.splitlines()[1:]]
    message = itertools.takewhile(_is_text, itertools.dropwhile(lambda line: not _is_text(line), lines))
    return " ".join(message) or " ".join(panel.split())


def _is_text(line: str) -> bool:
    return bool(set(line) - set("─-╰╯"))
