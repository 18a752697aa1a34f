"""A command on a poor terminal, and under a signal."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from interp.runs.process import TerminationError, exit_status, orderly

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_terminal_is_printed_on(encoding):
    script = "from interp.runs.process import orderly\nwith orderly(): print('caf\\u00e9 \\u2500 \\ud83d')"
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"caf") and done.stdout.endswith(b"?\n")


def test_sigterm_is_an_interrupt_with_its_own_status():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as raised, orderly():
        signal.raise_signal(signal.SIGTERM)
    assert isinstance(raised.value, TerminationError)
    assert (exit_status(raised.value), exit_status(KeyboardInterrupt())) == (143, 130)
    assert signal.getsignal(signal.SIGTERM) == before
