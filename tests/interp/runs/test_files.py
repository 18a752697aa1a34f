"""A failed write leaves the old file, and a digest depends on names and content."""

import pytest

from interp.runs.files import atomic_write_text, sha256_file


def test_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "old").write_text("old")
    with pytest.raises(OSError, match="taken"):
        atomic_write_text(tmp_path / "taken", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]
    assert (tmp_path / "taken" / "old").read_text() == "old"


def test_digest_of_a_folder_is_of_names_and_content(tmp_path):
    for name in ("one", "two"):
        atomic_write_text(tmp_path / name / "b" / "c.txt", "x")
        atomic_write_text(tmp_path / name / "a.txt", "y")
    assert sha256_file(tmp_path / "one") == sha256_file(tmp_path / "two")
    (tmp_path / "two" / "a.txt").rename(tmp_path / "two" / "z.txt")
    assert sha256_file(tmp_path / "one") != sha256_file(tmp_path / "two")
    with pytest.raises(FileNotFoundError, match="three"):
        sha256_file(tmp_path / "three")
