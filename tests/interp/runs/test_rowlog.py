"""The row log: whole after a crash, and nothing that was changed since is read as if it were not."""

import itertools
import json
import re
from pathlib import Path

import pytest

from interp.runs.rowlog import RowLog

CHUNKS = [[{"key": f"{c}.{i}", "text": "é\u2028\n"} for i in range(n)] for c, n in enumerate((3, 1, 2))]
LINES = re.compile("[^\n]*\n")  # str.splitlines would also break at U+2028
EARLIER = [{key: row[key] for key in ("key", "text")} for row in itertools.chain(*CHUNKS)]


@pytest.fixture
def path(tmp_path) -> Path:
    for chunk in CHUNKS:
        RowLog(tmp_path / "rows.jsonl").append(chunk)
    return tmp_path / "rows.jsonl"


def test_a_flipped_byte_is_refused_or_its_chunk_is_dropped(path):
    whole = path.read_bytes()
    prefixes = [list(itertools.chain(*CHUNKS[:i])) for i in range(4)]
    for at in range(0, len(whole), 7):
        for flip in (0x01, 0x20):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
            try:
                rows = RowLog(path).rows()
            except ValueError as error:
                assert str(error).startswith(f"{path}:") and "changed" in str(error) and "\n" not in str(error)
            else:
                assert rows in prefixes[2:]  # as after a crash: at most the last chunk is written again


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [*lines[:3], *lines[4:]], r":5: the checksum of lines 4\.\.5 does not hold"),  # a chunk is gone
        (lambda lines: [*lines, lines[3]], r":7: key '1\.0' stands in an earlier line"),
        (lambda lines: lines[3:], r":1: the checksum of lines 1\.\.1 does not hold"),
        (lambda lines: [*lines[:3], lines[4], lines[5], lines[3]], "the checksum of lines"),
        (lambda lines: [lines[0].replace("é", "e"), *lines[1:]], r":3: the checksum of lines 1\.\.3"),
        (lambda lines: [*lines[:5], '{"key": "x"}\n'], r":6: not a row of this log"),
        (lambda lines: [*lines[:5], "[" * 9000 + "\n", *lines[6:]], r":6: not a row of this log"),
    ],
)
def test_a_log_that_was_edited_is_refused_with_its_line(path, change, message):
    path.write_text("".join(change(LINES.findall(path.read_text()))))
    with pytest.raises(ValueError, match=rf"rows\.jsonl{message}" if message[0] == ":" else message):
        RowLog(path)


def test_a_log_of_an_earlier_version_is_read_and_continued_under_a_checksum(path):
    lines = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    for line in lines:
        line.pop("log_sha256", None)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    log = RowLog(path)
    assert log.rows() == EARLIER
    log.append([{"key": "new"}])
    assert RowLog(path).rows() == [*EARLIER, {"key": "new"}]
    path.write_text(path.read_text().replace('"0.0"', '"0.9"'))
    with pytest.raises(ValueError, match=r"rows\.jsonl:7: the checksum"):
        RowLog(path)


def test_text_that_utf8_cannot_encode_comes_back_and_is_the_same_bytes_every_time(tmp_path):
    rows = [{"key": "a", "text": "half \ud83d of a pair"}, {"key": "b", "text": "\udfff"}]
    written = []
    for name in ("one", "two"):
        RowLog(tmp_path / name).append(rows)
        assert RowLog(tmp_path / name).rows() == rows
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]


def test_a_file_cut_at_any_byte_comes_back_to_whole_chunks(tmp_path):
    chunks = [[{"key": f"{c}.{i}", "text": "é\u2028\n"} for i in range(n)] for c, n in enumerate((3, 1, 2))]
    path = tmp_path / "rows.jsonl"
    for chunk in chunks:
        RowLog(path).append(chunk)
    whole = path.read_bytes()
    prefixes = [list(itertools.chain(*chunks[:i])) for i in range(4)]
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        log = RowLog(path, repair=True)
        assert log.rows() in prefixes
        for chunk in chunks[prefixes.index(log.rows()) :]:
            log.append(chunk)
        assert path.read_bytes() == whole
