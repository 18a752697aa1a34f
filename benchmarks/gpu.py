"""The same measurements at real 8B and 14B shapes, with random weights made on the accelerator.

python -m benchmarks.gpu --shape llama-8b
python -m benchmarks.gpu --shape qwen-14b --out qwen-14b.csv
python -m benchmarks.gpu --shape llama-8b --dry-run     # the same code on the CPU, tiny, in seconds
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.cases import real_shapes
from benchmarks.models import SHAPES
from benchmarks.sizes import ACCELERATOR, QUICK
from benchmarks.table import as_text, write


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one shape and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Measure real shapes.")
    parser.add_argument("--shape", choices=sorted(SHAPES), required=True)
    parser.add_argument("--dry-run", action="store_true", help="tiny, on the CPU; the numbers mean nothing")
    parser.add_argument("--out", type=Path, default=None, help="table to write (default: none)")
    options = parser.parse_args(argv)
    if not options.dry_run and not torch.cuda.is_available():
        parser.error(f"--shape {options.shape}: there is no CUDA device here; --dry-run runs on the CPU")
    size, device = (QUICK, "cpu") if options.dry_run else (ACCELERATOR, "cuda")
    rows = list(real_shapes.rows(size, options.shape, device))
    machine = None if options.dry_run else f"1 x {torch.cuda.get_device_name()}; torch {torch.__version__}"
    print(as_text(rows, machine=machine))
    if options.out is not None:
        write([row.cells() for row in rows], options.out, machine=machine)
    return 0


if __name__ == "__main__":
    sys.exit(main())
