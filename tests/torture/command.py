"""``semcon reproduce`` on three small cells: python -m tests.torture.command RUNS WORKERS."""

import sys
from collections.abc import Sequence
from typing import cast

from experiments.__main__ import main
from experiments.registry import REGISTRY, Command
from tests.experiments.pipelines.reduced import TRAINED, Reduced
from training.registry import ORGANISMS


class _Reduced(Command):
    """The command of the tests, which is not below the package of the commands."""

    def load(self, words: Sequence[str] = ()) -> type[Reduced]:
        """Return it."""
        return Reduced


if __name__ in ("__main__", "__mp_main__"):  # the workers' registry is that of the command
    ORGANISMS[TRAINED.name] = TRAINED

if __name__ == "__main__":
    cast(dict[str, Command], REGISTRY)["reproduce"] = _Reduced("", "Three small cells.")
    sys.exit(main(["reproduce", "--runs", sys.argv[1], "--workers", sys.argv[2]]))
