"""Repairs of the zoo: only contained adapters; what cannot be repaired is named, any other error stops."""

import pytest

from experiments.audit.zoo import CONTAINED
from experiments.pipelines.audit_repairs import AuditRepairs, left_out


def test_only_contained_adapters_are_repaired():
    specimens = AuditRepairs(families=("llama",), pretrainings=(0,), arms=("clerk", "library", "baseline")).specimens()
    assert {s.kind for s in specimens} == set(CONTAINED) - {"contained-persona"}
    with pytest.raises(ValueError, match="arms baseline: no contained adapter"):
        AuditRepairs(families=("llama",), pretrainings=(0,), arms=("baseline",)).specimens()


def test_an_adapter_without_a_gate_is_named_and_any_other_error_stops(capsys):
    cell = AuditRepairs(families=("llama",), pretrainings=(0,), arms=("clerk",)).cells()[0]
    assert left_out(cell, ValueError("audit of a: clean, so there is no gate to repair")) == []
    assert capsys.readouterr().err == "not repaired: audit of a: clean, so there is no gate to repair\n"
    with pytest.raises(OSError, match="disk"):
        left_out(cell, OSError("disk"))
