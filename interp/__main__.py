"""``python -m interp``: see ``interp/cli/main.py``."""

import sys

from interp.cli.main import main

sys.exit(main())
