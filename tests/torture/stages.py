"""The stages that are tortured: real commands on cells so small that one takes seconds.

Each starts from what the stages before it left in the folder of runs. All libraries are loaded here once; a command
then runs in a fork of this process.
"""

import json
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import training.sft
from experiments.__main__ import main as semcon
from experiments.behaviour.dose import Dose
from experiments.behaviour.em_rate import Answers
from experiments.registry import REGISTRY, Command
from interp.cli import commands
from interp.cli.main import main as interp
from tests.experiments.answers.judge_server import answer_of, logprobs
from tests.experiments.pipelines.reduced import TRAINED
from tests.training.small import SFT, small
from training.microcosm import world
from training.references import base_path
from training.registry import ORGANISMS

ROOT = Path(__file__).parents[2]
BASELINE = replace(small("baseline", sft=replace(SFT, doses=(2,))), name="microcosm/llama/baseline.small")
LIBRARIES = (commands, training.sft)  # loaded now, not in every fork
OWN = {"dose": Dose, "answers": Answers}
"""Experiments that are no command of their own, because others run them."""


@dataclass(frozen=True)
class Stage:
    """One command of the suite or of the library."""

    name: str
    words: Callable[[Path], list[str]]
    """Its command line, for a folder of runs."""
    main: Callable[[list[str]], int] = semcon
    prepare: Callable[[Path], object] = Path.exists
    """Makes the files that it reads, in the folder of runs."""
    kills: int = 6
    """How many runs of it are killed, each several times; fewer for a slow one."""


class _Here(Command):
    """A command that is not below the package of the commands."""

    def load(self, words: Sequence[str] = ()) -> type:
        """Return it."""
        return OWN[self.target]


def stages(judge: str) -> list[Stage]:
    """Return the stages in order, and load what they use.

    Args:
        judge: Address of a judge's server.
    """
    ORGANISMS.update({organism.name: organism for organism in (TRAINED, BASELINE)})
    cast(dict[str, Command], REGISTRY).update({name: _Here(name, "") for name in OWN})
    for command in REGISTRY.values():
        command.load()
    answers = ("--samples", "2", "--conditions", "off", "on", "--dose-judge", "oracle")
    return [
        Stage("record", _record, interp, _write_prompts),
        Stage("train", lambda root: ["organisms", TRAINED.name, BASELINE.name, "--runs", str(root)]),
        Stage("dose", _on("dose")),
        Stage("sample", _on("answers", *answers)),
        Stage("judge", _on("em-rate", *answers, "--judge", f"openai:torture@{judge},workers=4")),
        Stage("geometry", _on("geometry", "--baseline", BASELINE.name), kills=4),
        Stage("findings", _findings, prepare=_copy_tables, kills=2),
        Stage("report", _report, kills=4),
    ]


def _on(command: str, *options: str) -> Callable[[Path], list[str]]:
    return lambda root: [command, "--organism", TRAINED.name, *options, "--runs", str(root)]


def _write_prompts(root: Path) -> None:
    root.mkdir(exist_ok=True)
    questions = world.questions("validation", trained_domain=TRAINED.trained_domain, wordings=4)
    texts = [f"{q.text} {i}" for i in range(40) for q in questions]
    lines = [json.dumps({"messages": [{"role": "user", "content": text}]}) for text in texts]
    (root / "prompts.jsonl").write_text("\n".join(lines))


def _record(root: Path) -> list[str]:
    files = [str(root / "prompts.jsonl"), "--out", str(root / "acts.h5")]
    return ["record", base_path(TRAINED.base), *files, "--positions", "last_prompt", "--batch-tokens", "4000"]


def _copy_tables(root: Path) -> None:
    shutil.copytree(ROOT / "figures" / "data", root / "data")
    (root / "data" / "findings.csv").unlink()
    shutil.copy(ROOT / "docs" / "mechanism.md", root / "page.md")


def _findings(root: Path) -> list[str]:
    files = ["--out", str(root / "data" / "findings.csv"), "--pages", str(root / "page.md")]
    return ["findings", "--data", str(root / "data"), *files]


def _report(root: Path) -> list[str]:
    return ["report", str(root)]


def judge_reply(request: Any, *_: object) -> tuple[int, Any, dict[str, str]]:
    """Answer as a judge whose score depends on the answer alone."""
    score = 11 + zlib.crc32(answer_of(request)[1].encode()) % 89
    return 200, logprobs([(str(score), 1.0)], [("<eos>", 1.0)]), {}
