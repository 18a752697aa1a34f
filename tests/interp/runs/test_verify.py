"""``semcon verify``: nothing to say of whole runs, one line per fault of any other."""

import json
from pathlib import Path

import pytest

from experiments.__main__ import main
from interp.runs.run import Run
from interp.runs.verify import faults, run_folders


@pytest.fixture
def root(tmp_path) -> Path:
    """Two finished runs, one made from the other, and an unfinished one."""
    with Run.open(tmp_path, "coin", {"n": 1}) as coin:
        coin.append([{"key": "a"}, {"key": "b"}])
        coin.finish()
    with Run.open(tmp_path, "echo", {}) as echo:
        echo.stand_on(coin.run_id, coin.manifest["outputs"])
        echo.append([{"key": "c"}])
        echo.write_table([{"value": 1}])
        echo.finish()
    with Run.open(tmp_path, "slow", {}) as slow:
        slow.append([{"key": "d"}])
    return tmp_path


def test_whole_runs_have_no_faults(root, capsys):
    assert len(run_folders(root)) == 3
    assert main(["verify", str(root)]) == 0
    assert capsys.readouterr().out == f"{root}: 3 intact\n"


def one(root, pattern) -> Path:
    return next(root.glob(pattern))


def flip(path):
    data = path.read_bytes()
    path.write_bytes(data[:5] + bytes([data[5] ^ 1]) + data[6:])


def forge(path):
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"config": {"n": 2}}))


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("echo/*/table.csv", flip, "table.csv: changed since it was finished"),
        ("echo/*/config.json", Path.unlink, "config.json: missing since it was finished"),
        ("slow/*/rows.jsonl", flip, "rows.jsonl:1: "),
        ("coin/*/manifest.json", forge, "manifest.json: states another config"),
        ("coin/*/manifest.json", lambda path: path.write_text("[]"), "manifest.json: not a JSON object"),
        ("coin/*/manifest.json", lambda path: path.write_text("{"), "manifest.json: not JSON"),
        ("slow/*", lambda path: (path / "acts.h5").symlink_to("/etc/hostname"), "acts.h5: a link"),
    ],
)
def test_each_fault_is_one_line_with_the_file(root, file, damage, message, capsys):
    path = one(root, file)
    damage(path)
    assert main(["verify", str(root)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(str(path)) and message in lines[0]


def test_a_run_made_from_another_is_named_with_the_file(root):
    path = one(root, "coin/*/manifest.json")
    manifest = json.loads(path.read_text())
    manifest["outputs"]["rows.jsonl"] = "0" * 64
    path.write_text(json.dumps(manifest))
    echo = one(root, "echo/*")
    assert list(faults(echo)) == [f"{path.parent / 'rows.jsonl'}: {echo} was made from another"]


def test_nothing_to_verify_is_refused(tmp_path, capsys):
    assert main(["verify", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err == f"semcon verify: {tmp_path / 'nowhere'}: no run and no adapter there\n"
