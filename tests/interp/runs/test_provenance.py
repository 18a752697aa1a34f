"""Provenance is recorded where there is one."""

from interp.runs import provenance


def test_no_git_is_no_error(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.git_state.__wrapped__() is None
