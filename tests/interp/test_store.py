"""What was appended is read back bit for bit, and every damage to the file is either repaired or named."""

import json
import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch

from interp.runs.files import sha256_file
from interp.sites import Site, resid_post
from interp.store import StoreError, append_to, create, info, read_store, verify

SITES, POSITIONS, D = resid_post([0, 3]), ("last_prompt", "trigger"), 8


def rows(n, start=0, dtype=torch.float32):
    noise = torch.Generator().manual_seed(start)
    values = torch.randn(len(SITES), len(POSITIONS), n, D, generator=noise).to(dtype)
    return values, [bytes([index % 256] * 32) for index in range(start, start + n)]


def new(path, capacity=1000, dtype="float32", **attributes):
    return create(
        path, sites=SITES, positions=POSITIONS, d_model=D, capacity=capacity, dtype=dtype, attributes=attributes
    )


def dataset(file, name):
    held = file[name]
    assert isinstance(held, h5py.Dataset)
    return held


@pytest.fixture
def path(tmp_path):
    return tmp_path / "acts.h5"


@pytest.fixture
def filled(path):
    """A store of 700 prompts: two full blocks and a part of one."""
    values, hashes = rows(700)
    with new(path, model="tiny") as store:
        store.append(values, hashes)
    return path, values


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("pieces", [(700,), (1, 255, 256, 188), (300, 300, 100), (7,) * 100])
def test_every_site_reads_back_exactly_in_the_stored_dtype(path, dtype, pieces):
    values, hashes = rows(700)
    with new(path, dtype=dtype) as store:
        start = 0
        for n in pieces:
            store.append(values[:, :, start : start + n], hashes[start : start + n])
            start += n
    held = read_store(path)
    for s, site in enumerate(SITES):
        for p, position in enumerate(POSITIONS):
            assert torch.equal(held.read(site, position), values[s, p].to(getattr(torch, dtype)))
    assert held.prompt_hashes == hashes and verify(path) == []


def test_any_hdf5_reader_can_read_it(filled):
    path, values = filled
    with h5py.File(path) as file:
        n_valid, blocks = dataset(file, "n_valid")[0], dataset(file, "values")[:, 1, 0]
        found = blocks.reshape(-1, D)[:n_valid]
        assert np.array_equal(found, values[1, 0].numpy()) and file.attrs["model"] == "tiny"


def test_room_that_is_not_used_takes_no_disk(path):
    new(path, capacity=1_000_000).close()
    assert info(path)["bytes"] > 1e8 and info(path)["bytes_on_disk"] < 1e6


def test_info_says_what_it_holds(filled):
    path, _ = filled
    said = info(path)
    assert (said["prompts"], said["capacity"], said["complete"]) == (700, 1000, True)
    assert said["sites"] == ["resid_post.0", "resid_post.3"] and said["attributes"] == {"model": "tiny"}
    assert json.dumps(said)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.74])
def test_a_file_cut_off_in_the_middle_is_named_and_continues_after_its_last_whole_block(filled, share):
    path, values = filled
    os.truncate(path, int(info(path)["bytes"] * share))
    assert "cut off" in verify(path)[0] and not info(path)["complete"]
    with pytest.raises(StoreError, match="cut off"):
        read_store(path)
    with append_to(path) as store:
        n = len(store)
        assert n in (0, 256, 512)
        _, hashes = rows(700)
        store.append(values[:, :, n:], hashes[n:])
    assert verify(path) == [] and torch.equal(read_store(path).read(SITES[1], "trigger"), values[1, 1])


def test_cutting_off_room_that_was_never_used_loses_nothing(filled):
    path, values = filled
    os.truncate(path, info(path)["bytes"] - 1)
    with append_to(path) as store:
        assert len(store) == 700
    assert torch.equal(read_store(path).read(SITES[0], "trigger"), values[0, 1])


def test_a_flipped_bit_is_found_where_it_is(filled):
    path, _ = filled
    with h5py.File(path, "r+") as file:
        dataset(file, "values")[1, 0, 1, 17, 3] += 1
    assert [line.split(": ", 1)[1] for line in verify(path)] == ["prompts 256..511: the checksum does not hold"]
    with append_to(path) as store:
        assert len(store) == 256


KILLED = """
import os, signal, sys, torch
from interp.sites import resid_post
from interp.store import create
sites, positions = resid_post([0, 3]), ("last_prompt", "trigger")
store = create(sys.argv[1], sites=sites, positions=positions, d_model=8, capacity=1000)
store.append(torch.ones(2, 2, 600, 8), [b"x" * 32] * 600)
store.flush()
store.append(torch.ones(2, 2, 9, 8), [b"x" * 32] * 9)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_flushed_is_there_after_the_writer_was_killed(path):
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)]).returncode == -signal.SIGKILL
    assert verify(path) == []
    with append_to(path) as store:
        assert len(store) == 600


def test_appending_after_reopening_in_the_middle_of_a_block(filled):
    path, values = filled
    more, hashes = rows(100, start=700)
    with append_to(path) as store:
        store.append(more, hashes)
    assert torch.equal(read_store(path).read(SITES[0], "trigger"), torch.cat([values[0, 1], more[0, 1]]))
    assert verify(path) == []


def test_two_writers_at_once_are_refused(path):
    with new(path), pytest.raises(StoreError, match="another process is writing"):
        append_to(path)


def test_what_cannot_be_stored_is_named(path):
    with new(path, capacity=10, dtype="float16") as store:
        values, hashes = rows(4)
        values[1, 0, 2, 5] = 1e5
        with pytest.raises(StoreError, match=r"resid_post\.3 at last_prompt, prompt 2: not finite in float16"):
            store.append(values, hashes)
        with pytest.raises(StoreError, match="append 11 prompts"):
            store.append(*rows(11))
        with pytest.raises(StoreError, match=r"wants .*\(2, 2, 3, 8\)"):
            store.append(values, hashes[:3])
    with pytest.raises(StoreError, match=r"site resid_post\.9: recorded were resid_post\.0, resid_post\.3"):
        read_store(path).read(Site("resid_post", 9), "trigger")
    with pytest.raises(StoreError, match="opened for reading"):
        read_store(path).append(*rows(1))
    with pytest.raises(StoreError, match="exists already"):
        new(path)


@pytest.mark.parametrize("content", [b"", b"not a store\n", b'{"format": "other"}\n', b"\x89HDF\r\n\x1a\n"])
def test_another_file_is_refused(path, content):
    path.write_bytes(content)
    assert "not a store" in verify(path)[0]
    with pytest.raises(StoreError, match="not a store"):
        info(path)
    with pytest.raises(StoreError, match="no such file"):
        read_store(path.with_name("absent.h5"))


@pytest.mark.parametrize(
    ("entry", "value", "named"),
    [
        ("sites", None, "sites"),
        ("sites", ["moon.1"], "moon"),
        ("sites", 5, "sites"),
        ("positions", [], "positions"),
        ("d_model", "8", "d_model"),
        ("capacity", 0, "capacity"),
        ("capacity", 10**9, "would end at byte"),
        ("dtype", "float64", "dtype"),
        ("offsets", {}, "n_valid"),
        ("offsets", [1], "offsets"),
        ("size", 9, "of 9"),
        ("zzz", 1, "zzz"),
    ],
)
def test_a_header_that_describes_no_store_is_refused_by_its_entry(filled, entry, value, named):
    path, _ = filled
    header = {**json.loads(path.open("rb").readline()), entry: value}
    with path.open("r+b") as file:
        file.write(json.dumps(header).encode() + b"\n")
    for use in (info, read_store, append_to):
        with pytest.raises(StoreError, match=f"not a store of .*{named}"):
            use(path)
    assert named in verify(path)[0]


def test_a_count_beyond_the_room_is_refused(filled):
    path, _ = filled
    with h5py.File(path, "r+") as file:
        dataset(file, "n_valid")[0] = 10**6
    assert verify(path) == [f"{path}: counts 1000000 prompts in room for 1000"]
    with pytest.raises(StoreError, match="counts 1000000 prompts"):
        read_store(path)


# --- equal runs are equal bytes ---


def test_equal_recordings_are_equal_bytes_however_they_were_cut_into_sessions(tmp_path):
    values, hashes = rows(700)
    digests = set()
    for n, pieces in enumerate([(700,), (300, 400), (600, 1, 99)]):
        torch.full((10, 1000, 64), 7.0).sum()  # freed memory that is not zero
        path, start = tmp_path / f"{n}.h5", 0
        for size in pieces:
            with append_to(path) if path.exists() else new(path, model="tiny") as store:
                store.append(values[:, :, start : start + size], hashes[start : start + size])
            start += size
        digests.add(sha256_file(path))
        time.sleep(1.1)  # HDF5 would write the time, in seconds
    assert len(digests) == 1


def test_room_that_is_not_there_is_an_error_that_names_the_store(path):
    script = (
        "import resource, sys, torch; from interp.sites import resid_post; from interp.store import create\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "try: create(sys.argv[1], sites=resid_post([0]), positions=('trigger',), d_model=8, capacity=1000)\n"
        "except OSError as error: print(error.filename)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert done.stdout.strip() == str(path), done.stderr
    assert not list(path.parent.iterdir())
