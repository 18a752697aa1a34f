"""Measure every case and write the table.

    python -m benchmarks                # about twenty minutes on an idle machine
    python -m benchmarks --quick        # tiny sizes that say only that everything runs; writes nothing without --out
    python -m benchmarks --only storing # one case again, in place of its rows in the table

One process, one thread, the CPU. Both sides take turns, so that a machine that slows down slows both.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).with_name("results.csv")
NAMES = ("recording", "workers", "sampling", "precision", "hook_overhead", "storing", "probing")
"""The cases, known before anything is imported."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks and return the exit status."""
    options = _options(argv)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"  # read when the libraries load, which is why they are imported below
    from benchmarks.cases import measure
    from benchmarks.sizes import FULL, QUICK
    from benchmarks.table import as_text, markdown, read, renewed, write

    size = QUICK if options.quick else FULL
    rows = list(measure(size, options.only, tell=lambda text: print(text, file=sys.stderr)))
    print(as_text(rows))
    if options.out is not None:
        write(renewed(options.out, rows) if options.only else [row.cells() for row in rows], options.out)
        print(f"\nwrote {options.out}")
    if options.readme is not None and options.out is not None:
        from figures.rows import renew

        renew(options.readme, {"speed": markdown(read(options.out))})
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure ours against others.")
    parser.add_argument(
        "--out", type=Path, default=None, help="table to write (default: benchmarks/results.csv; none if quick)"
    )
    parser.add_argument("--only", nargs="+", default=(), metavar="CASE", choices=NAMES, help=", ".join(NAMES))
    parser.add_argument("--readme", type=Path, help="a README whose table of speeds is to be renewed")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; the numbers mean nothing")
    options = parser.parse_args(argv)
    if options.out is None and not options.quick:
        options.out = RESULTS
    if options.readme is not None and options.out is None:
        parser.error("--readme: shows a table that was written; name it with --out")
    return options


if __name__ == "__main__":
    sys.exit(main())
