"""Print the path of a shipped launch config or of the Slurm recipe.

accelerate launch --config_file "$(python -m training.launch fsdp2)" -m experiments organisms NAME
"""

import sys
from pathlib import Path

SHIPPED = {path.stem: path for kind in ("*.yaml", "*.sbatch") for path in sorted(Path(__file__).parent.glob(kind))}


def main(names: list[str]) -> int:
    """Print the path of the file of that name; refuse any other name in one line."""
    if len(names) != 1 or names[0] not in SHIPPED:
        print(f"python -m training.launch {' '.join(names)}: expected one of {', '.join(SHIPPED)}", file=sys.stderr)
        return 2
    print(SHIPPED[names[0]])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
