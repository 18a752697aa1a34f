"""Measure every case and write the table.

    python -m benchmarks                # about twenty minutes on an idle machine
    python -m benchmarks --quick        # tiny sizes, only to see that everything runs; writes nothing without --out
    python -m benchmarks --only storing # one case again; replaces its rows in the table

One process, one thread, the CPU. The sides take turns, so that a machine that slows down slows them all.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cases import NAMES, measure

RESULTS = Path(__file__).with_name("results.csv")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks and return the exit status."""
    options = _options(argv)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"  # read when torch and numpy load, so their imports come later
    from benchmarks.sizes import FULL, QUICK
    from benchmarks.table import as_text, markdown, read, renewed, write

    size = QUICK if options.quick else FULL
    rows = list(measure(size, options.only, report=lambda text: print(text, file=sys.stderr)))
    print(as_text(rows))
    if options.out is not None:
        write(renewed(options.out, rows) if options.only else [row.cells() for row in rows], options.out)
        print(f"\nwrote {options.out}")
    if options.page is not None and options.out is not None:
        from figures.markdown.table import renew

        renew([options.page], {"speed": markdown(read(options.out))})
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure ours against others.")
    parser.add_argument("--out", type=Path, help="table to write (default: benchmarks/results.csv; none with --quick)")
    parser.add_argument("--only", nargs="+", default=(), metavar="CASE", choices=NAMES, help=", ".join(NAMES))
    parser.add_argument("--page", type=Path, help="page whose table of speeds is renewed, such as docs/speed.md")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; the numbers mean nothing")
    options = parser.parse_args(argv)
    if options.out is None and not options.quick:
        options.out = RESULTS
    if options.page is not None and options.out is None:
        parser.error("--page: shows a table that was written; name it with --out")
    return options


if __name__ == "__main__":
    sys.exit(main())
