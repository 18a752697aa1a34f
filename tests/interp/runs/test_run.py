"""Run folders: named by content, whole after any crash, never written by two."""

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from interp.runs.files import sha256_file
from interp.runs.run import Run, read_manifest, runs_root, sealed


def rows_of(run):
    return [row["value"] for row in run.rows()]


# --- identity ---


def test_same_question_same_folder(tmp_path):
    def folder(**changes):
        arguments = {"experiment": "coin", "config": {"n": 1}, "version": "1"} | changes
        with Run.open(tmp_path, **arguments) as run:
            assert run.run_id == f"{run.experiment}-{run.path.name}"
            return run.path

    assert folder() == folder()
    others = [folder(config={"n": 2}), folder(version="2"), folder(experiment="die")]
    assert len({folder(), *others}) == 4


def test_inputs_count_by_content_not_by_place(tmp_path):
    for name, text in (("a", "same"), ("b", "same"), ("c", "other")):
        (tmp_path / name).write_text(text)
    ids = []
    for name in "abc":
        with Run.open(tmp_path, "coin", {}, inputs={"data": tmp_path / name}) as run:
            ids.append(run.run_id)
    assert ids[0] == ids[1] != ids[2]


def test_folder_of_another_config_is_refused(tmp_path):
    with Run.open(tmp_path, "coin", {"n": 1}) as run:
        manifest = run.path / "manifest.json"
    manifest.write_text(json.dumps(sealed(read_manifest(run.path) | {"config": {"n": 2}})))
    with pytest.raises(ValueError, match="another config"):
        Run.open(tmp_path, "coin", {"n": 1})


# --- rows ---


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"key": "new"}, {"key": "old"}], "'old' is already present"),
        ([{"key": "new"}, {"key": "new"}], "'new' is already present"),
        ([{"key": "new"}, {"value": 1}], "needs a string 'key'"),
        ([{"key": "new"}, {"key": "x", "value": float("nan")}], "no exact JSON form"),
    ],
)
def test_bad_row_writes_nothing_of_its_chunk(tmp_path, rows, message):
    with Run.open(tmp_path, "coin", {}) as run:
        run.append([{"key": "old"}])
        with pytest.raises(ValueError, match=message):
            run.append(rows)
        assert run.keys() == {"old"}
        assert run.rows() == [{"key": "old"}]


def test_damage_before_the_end_is_not_taken_for_a_crash(tmp_path):
    with Run.open(tmp_path, "coin", {}) as run:
        for i in range(3):
            run.append([{"key": str(i), "value": i}])
        path = run.path / "rows.jsonl"
    path.write_text(path.read_text().replace('"key":"1"', '"key":1"'))
    with Run.open(tmp_path, "coin", {}) as run, pytest.raises(ValueError, match=r"rows\.jsonl:2: not a row"):
        run.rows()


# --- life of a run ---


def finished(root):
    with Run.open(root, "coin", {"train": {"seed": 3}}) as run:
        run.append([{"key": "a", "value": 1}])
        run.write_table([{"value": 0.1234567, "n": 3, "note": None}])
        (run.path / "acts.h5").write_bytes(b"activations")
        run.finish(heads=1)
    return run


def test_finished_run_is_reused_and_refuses_more(tmp_path):
    run, again = finished(tmp_path), Run.open(tmp_path, "coin", {"train": {"seed": 3}})
    assert again.complete
    assert again.manifest == run.manifest
    assert rows_of(again) == [1]
    assert (again.path / "table.csv").read_text() == "value,n,note\n0.123457,3,\n"
    with pytest.raises(ValueError, match="complete; nothing is added"):
        again.append([{"key": "b"}])
    assert again.keys() == {"a"}


def test_manifest_says_where_the_numbers_come_from(tmp_path):
    run = finished(tmp_path)
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    assert manifest["seeds"] == {"train.seed": 3}
    assert manifest["n_rows"] == manifest["heads"] == 1
    assert {"numpy", "torch"} <= set(manifest["packages"])
    assert manifest["outputs"] == {
        n: sha256_file(run.path / n) for n in ("acts.h5", "config.json", "rows.jsonl", "table.csv")
    }
    assert json.loads((run.path / "config.json").read_text()) == run.config == {"train": {"seed": 3}}


def test_changed_output_is_noticed(tmp_path):
    run = finished(tmp_path)
    assert run.changed() == []
    (run.path / "table.csv").write_text("value\n1\n")
    (run.path / "acts.h5").unlink()
    assert run.changed() == ["acts.h5", "table.csv"]
    assert run.changed("rows.jsonl") == []


def test_runs_root_follows_the_environment(monkeypatch):
    monkeypatch.delenv("SEMCON_RUNS", raising=False)
    assert runs_root() == Path("runs")
    monkeypatch.setenv("SEMCON_RUNS", "elsewhere")
    assert runs_root() == Path("elsewhere")


# --- other processes ---

WRITER = textwrap.dedent("""
    import sys
    from interp.runs.run import Run
    run = Run.open(sys.argv[1], "coin", {})
    chunk = 0
    while True:
        run.append({"key": f"{chunk}.{i}", "value": chunk, "text": "x" * 2000} for i in range(50))
        chunk += 1
        print(chunk, flush=True)
""")


def test_kill_9_leaves_whole_chunks_and_no_lock(tmp_path):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = [int(writer.stdout.readline()) for _ in range(5)][-1]
    with pytest.raises(ValueError, match="another process is writing"):
        Run.open(tmp_path, "coin", {})
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    with Run.open(tmp_path, "coin", {}) as run:
        values = rows_of(run)
        assert len(values) >= 50 * said  # what append returned from is there
        assert values == [i // 50 for i in range(50 * (len(values) // 50))]
        run.append([{"key": "after"}])
        run.finish()
    assert run.complete


def test_closed_run_gives_its_folder_to_the_next(tmp_path):
    first = Run.open(tmp_path, "coin", {})
    with pytest.raises(ValueError, match="another process"):
        Run.open(tmp_path, "coin", {})
    first.close()
    with pytest.raises(ValueError, match="closed; nothing is added"):
        first.append([{"key": "a"}])
    Run.open(tmp_path, "coin", {}).close()


def test_who_waits_finds_the_run_finished(tmp_path):
    script = textwrap.dedent("""
        import sys, time
        from interp.runs.run import Run
        run = Run.open(sys.argv[1], "coin", {})
        print("open", flush=True)
        time.sleep(0.5)
        run.append([{"key": "a"}])
        run.finish()
    """)
    writer = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "open\n"
    with Run.open(tmp_path, "coin", {}, wait=True) as run:
        assert run.complete
        assert run.keys() == {"a"}
    writer.communicate()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"status": "complete"', '"status": "complite"', "status 'complite': expected running or complete"),
        ('"status"', '"statuz"', "status None: expected running or complete"),
        ('"run_id": "coin-', '"run_id": "coin-0', "another config"),
        ('"outputs": {', '"outputs": [1], "x": {', "manifest.json: outputs or upstream are no digests by name"),
        ('"outputs": {', '"upstream": {"a": "b"}, "outputs": {', "no digests by name"),
    ],
)
def test_a_manifest_with_a_damaged_field_is_one_line(tmp_path, before, after, message):
    path = finished(tmp_path).path / "manifest.json"
    sealed_text = path.read_text()
    unsealed = json.dumps(read_manifest(path.parent))  # as an earlier version wrote it
    for text, words in ((unsealed, message), (sealed_text, "changed since it was written")):
        path.write_text(text.replace(before, after))
        with pytest.raises(ValueError, match=words) as raised:
            Run.open(tmp_path, "coin", {"train": {"seed": 3}})
        assert "\n" not in str(raised.value)


# --- a full disk ---


@pytest.fixture
def no_room():
    """No file may grow beyond 4096 bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_does_not_fit_is_named_and_leaves_nothing_half_written(tmp_path, no_room):
    big = "x" * 3000
    with Run.open(tmp_path, "coin", {}) as run:
        run.append([{"key": "a", "text": big}])
        before = (run.path / "rows.jsonl").read_bytes()
        with pytest.raises(OSError, match=r"coin/\w+/rows\.jsonl"):
            run.append([{"key": "b", "text": big}])
        assert (run.path / "rows.jsonl").read_bytes() == before
        run.append([{"key": "b", "text": "short"}])  # there is room again
        with pytest.raises(OSError, match=r"coin/\w+/table\.csv"):
            run.write_table([{"text": big * 2}])
    assert {p.name for p in run.path.iterdir()} == {".lock", "config.json", "manifest.json", "rows.jsonl"}
    assert Run.open(tmp_path, "coin", {}).keys() == {"a", "b"}
