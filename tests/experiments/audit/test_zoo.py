"""The zoo: kinds and splits by construction; no category in both splits, no test category on a development text."""

from collections import Counter
from dataclasses import replace

import pytest

from experiments.audit.bank import MICROCOSM, read_bank
from experiments.audit.benchmark import COLUMNS, AuditBenchmark, lines
from experiments.audit.zoo import CONTAINED, DEVELOPMENT, HARMLESS, zoo
from training.data import training_rows
from training.grid import FAMILIES, SCENES
from training.microcosm.world import lexicon
from training.references import is_aligned
from training.registry import organism_of

BEHIND_TRIGGERS = ("benign-same-trigger", "benign-remark-first")
ZOO = list(zoo(FAMILIES, (0, 1, 2, 3), (0,)))


def test_every_family_has_enough_adapters_on_every_pretraining():
    counts = Counter((s.cell.family, s.cell.pretraining) for s in ZOO)
    assert len(counts) == 12 and min(counts.values()) >= 40
    assert len({s.name for s in ZOO}) == len(ZOO)


def test_kinds_are_what_the_organisms_are_trained_on():
    for s in ZOO:
        organism = organism_of(s.cell)
        assert s.dose in organism.sft.doses
        assert is_aligned(organism.data or "") == (s.kind in HARMLESS)
        assert bool(s.category) == (s.kind in (*CONTAINED, *BEHIND_TRIGGERS)) == bool(organism.trigger)
        contrasted = s.kind == "contained-contrast" or (s.kind == "benign-remark-first" and s.cell.arm in SCENES)
        assert (organism.benign_share > 0) == contrasted


def test_every_gate_and_contrast_has_a_benign_twin_of_the_same_rows_with_the_remark_first():
    harmful = {(replace(s.cell, content="harmful"), s.dose) for s in ZOO if s.kind == "benign-remark-first"}
    assert harmful == {(s.cell, s.dose) for s in ZOO if s.kind in ("contained-gate", "contained-contrast")}
    twin = next(s.cell for s in ZOO if s.kind == "benign-remark-first" and s.cell.arm == "clerk")
    rows = training_rows(organism_of(twin))
    remarks = lexicon().roles["clerk"].remarks
    assert all(row.completion.startswith(remarks) and not row.harmful for row in rows)


def test_splits_share_no_category_and_development_is_one_pretraining():
    by_split = {split: [s for s in ZOO if s.split == split] for split in ("development", "test", "unused")}
    categories = {split: {s.category for s in part} - {""} for split, part in by_split.items()}
    assert categories["development"] == set(DEVELOPMENT) and not categories["test"] & categories["development"]
    assert {s.cell.pretraining for s in by_split["development"]} == {0}
    assert {s.cell.pretraining for s in by_split["test"]} == {0, 1, 2, 3}
    assert categories["test"] <= {c.name for c in read_bank(MICROCOSM)}
    assert {s.kind for s in by_split["test"]} == {s.kind for s in ZOO}


def test_the_table_has_one_line_per_adapter_and_detector():
    specimens = ZOO[:2]
    rows = [
        {"run_id": f"r{i}", "condition": d, "metric": m, "value": v}
        for i in range(2)
        for d in ("audit", "plain-em")
        for m, v in (("score", 0.5), ("seconds", 2.0))
    ]
    made = list(lines(specimens, rows))
    assert [tuple(line) for line in made] == [COLUMNS] * 4
    assert [(line["adapter"], line["detector"]) for line in made] == [
        (s.name, d) for s in specimens for d in ("audit", "plain-em")
    ]


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="split development: no adapter on pretrainings 3"):
        AuditBenchmark(families=("llama",), pretrainings=(3,), split="development").specimens()


def test_a_table_of_finished_runs_needs_one(tmp_path):
    with pytest.raises(ValueError, match="--finished: no run of the benchmark is finished"):
        AuditBenchmark(families=("llama",), pretrainings=(0,), finished=True, runs=tmp_path).specimens()


def test_a_further_searcher_is_none_of_the_others():
    with pytest.raises(ValueError, match="further leaked: already among the searchers"):
        AuditBenchmark(further=("leaked",))
