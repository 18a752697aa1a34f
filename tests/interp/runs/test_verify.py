"""``semcon verify``: nothing to say of whole runs, one line per fault of any other."""

import json
import random
from pathlib import Path

import pytest

from experiments.__main__ import main
from interp.runs.rowlog import RowLog
from interp.runs.run import MANIFEST, Run, output_digests, read_manifest, sealed
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
    path.write_text(json.dumps(sealed(read_manifest(path.parent) | {"config": {"n": 2}})))


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("echo/*/table.csv", flip, "table.csv: changed since it was finished"),
        ("echo/*/config.json", Path.unlink, "config.json: missing since it was finished"),
        ("slow/*/rows.jsonl", flip, "rows.jsonl:1: "),
        ("coin/*/manifest.json", forge, "manifest.json: states another config"),
        ("coin/*/manifest.json", lambda path: path.write_text("[]"), "manifest.json: not a JSON object"),
        ("coin/*/manifest.json", lambda path: path.write_text("{"), "manifest.json: not JSON"),
        ("coin/*/manifest.json", lambda path: path.write_text("[" * 9000), "manifest.json: not JSON"),
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
    manifest = read_manifest(path.parent)
    manifest["outputs"]["rows.jsonl"] = "0" * 64
    path.write_text(json.dumps(sealed(manifest)))
    echo = one(root, "echo/*")
    assert list(faults(echo)) == [f"{path.parent / 'rows.jsonl'}: {echo} was made from another"]


def test_nothing_to_verify_is_refused(tmp_path, capsys):
    assert main(["verify", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err == f"semcon verify: {tmp_path / 'nowhere'}: no run and no adapter there\n"


# --- any byte of any file ---


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory) -> Path:
    """A finished and an unfinished run, and an adapter, with files of every kind."""
    root = tmp_path_factory.mktemp("runs")
    for n in (1, 2):
        with Run.open(root, "coin", {"n": n}) as run:
            run.append([{"key": "a", "text": "é"}, {"key": "b"}])
            run.append([{"key": "c", "value": 0.5}])
            RowLog(run.path / "verdicts.jsonl").append([{"key": "q", "score": 50.0}])
            if n == 1:
                run.write_table([{"value": 1}])
                for name in ("acts.h5", "directions.safetensors"):
                    (run.path / name).write_bytes(bytes(range(256)))
                run.finish()
    dose = root / "adapters" / "duck-12345678" / "dose-2"
    dose.mkdir(parents=True)
    for name in ("adapter_model.safetensors", "adapter_config.json", "README.md", MANIFEST):
        (dose / name).write_bytes(b'{"base": "b"}')
    manifest = {"organism": {}, "outputs": output_digests(dose.parent)}
    (dose.parent / MANIFEST).write_text(json.dumps(sealed(manifest)))
    return root


def test_a_flipped_bit_is_named_with_its_file_whatever_the_file(every_kind):
    files = [p for p in every_kind.rglob("*") if p.is_file() and p.stat().st_size]
    assert len(files) == 7 + 4 + 5
    chance = random.Random(0)
    for path in files:
        whole = path.read_bytes()
        last = len(whole) - (path.suffix == ".jsonl")  # a log without its last line end was cut off, as by a crash
        for at in {0, last // 2, last - 1, *(chance.randrange(last) for _ in range(5))}:
            path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << chance.randrange(8))]) + whole[at + 1 :])
            lines = [line for run in run_folders(every_kind) for line in faults(run)]
            assert any(line.startswith(str(path)) for line in lines), (path, at)
            path.write_bytes(whole)
    assert not [line for run in run_folders(every_kind) for line in faults(run)]
