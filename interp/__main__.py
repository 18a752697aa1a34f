"""``python -m interp``: see ``interp/cli/main.py``."""

import sys

from interp.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
