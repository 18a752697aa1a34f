"""A tracker of training is used only if asked for, and refused before any work if its package is not there."""

from importlib.util import find_spec

import pytest

from experiments.__main__ import main


@pytest.mark.parametrize("tracker", [name for name in ("tensorboard", "wandb") if find_spec(name) is None])
def test_a_tracker_without_its_package_is_refused(tracker, tmp_path, capsys):
    assert main(["organisms", "microcosm/llama/neutral", "--tracker", tracker, "--runs", str(tmp_path / "runs")]) == 2
    assert f"--tracker {tracker}: the package is not installed" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
