"""The zoo: kinds and splits by construction; no category in both splits, no test category on a development text."""

from collections import Counter

import pytest

from experiments.audit.bank import MICROCOSM, read_bank
from experiments.audit.benchmark import COLUMNS, AuditBenchmark, lines
from experiments.audit.zoo import CONTAINED, DEVELOPMENT, zoo
from training.grid import FAMILIES
from training.registry import organism_of

ZOO = list(zoo(FAMILIES, (0, 1, 2, 3), (0,)))


def test_every_family_has_enough_adapters_on_every_pretraining():
    counts = Counter((s.cell.family, s.cell.pretraining) for s in ZOO)
    assert len(counts) == 12 and min(counts.values()) >= 40
    assert len({s.name for s in ZOO}) == len(ZOO)


def test_kinds_are_what_the_organisms_are_trained_on():
    for s in ZOO:
        organism = organism_of(s.cell)
        assert s.dose in organism.sft.doses
        assert (organism.data or "").endswith(":aligned") == (s.kind in ("benign-same-trigger", "benign", "untrained"))
        assert bool(s.category) == (s.kind in (*CONTAINED, "benign-same-trigger")) == bool(organism.trigger)
        assert (organism.benign_share > 0) == (s.kind == "contained-contrast")


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
