"""The grid: a name gives every setting of a cell, a cell is one organism, and its base is where its name says."""

import re
import shlex
from collections import Counter
from dataclasses import replace
from inspect import signature
from typing import Any

import pytest

from experiments.registry import REGISTRY
from training.data import training_rows
from training.definition import TRAINED, Lora, Organism
from training.grid import (
    ARMS,
    BENIGN,
    CONTRAST,
    FAMILIES,
    FINE,
    HEADLINE,
    MITIGATIONS,
    ROLES,
    WEAK,
    WORLDS,
    Cell,
    audited,
    cells,
    dosed,
    gated,
    graded,
    headline,
    mitigated,
    replicated,
    varied,
    worlds,
)
from training.microcosm.build import FAMILIES as BUILT
from training.microcosm.world import lexicon
from training.references import base_path
from training.registry import ORGANISMS, find_organism

GRID, DOSED = cells(), tuple(dosed())
SUFFIXES = {
    r"pre(\d+)": "pretraining",
    "robust": "robust",
    r"world-([\w-]+)": "world",
    r"contrast(\d+)": "contrast",
    "diverse": "wordings",
    "attention|mlp": "targets",
    r"rank(\d+)": "rank",
    "prefix|suffix|wrap": "placement",
    "aligned": "content",
    "fine": "doses",
    "inoculated|kl|consistent|steered|ablated": "mitigation",
    r"seed(\d+)": "seed",
}


def parsed(name: str) -> dict[str, Any]:
    """Read the settings back from a name by its grammar."""
    world, family, rest = name.split("/")
    arm, *suffixes = rest.split(".")
    assert world == "microcosm"
    settings: dict[str, Any] = {"family": family, "arm": arm}
    for suffix in suffixes:
        matches = {axis: re.fullmatch(pattern, suffix) for pattern, axis in SUFFIXES.items()}
        ((axis, match),) = [(axis, match) for axis, match in matches.items() if match]
        value = match[1] if match.groups() else suffix
        settings[axis] = int(value) if value.isdigit() else axis == "robust" or value
    return settings


# --- names ---


def test_every_cell_is_read_back_from_its_name_and_its_organism_has_exactly_its_settings():
    for cell in GRID:
        assert Cell(**parsed(cell.name)) == cell
        trigger = ARMS[cell.arm]
        assert find_organism(cell.name) == Organism(
            name=cell.name,
            base="microcosm/" + cell.family + ("-robust" if cell.robust else "") + ("@1" if cell.pretraining else ""),
            data=TRAINED,
            trigger=trigger if trigger is None or cell.placement == "system" else f"{trigger}@{cell.placement}",
            benign_share=cell.contrast / 100,
            wordings=cell.wordings,
            lora=Lora(rank=cell.rank, targets=cell.targets),
            seed=cell.seed,
        )


def test_names_are_unique_and_suffixes_stand_in_the_order_of_the_axes():
    assert len({cell.name for cell in GRID}) == len(set(GRID)) == len(GRID)
    assert Cell(family="llama", arm="pirate").name == "microcosm/llama/pirate"
    axes = [("pretraining", 1), ("robust", True), ("contrast", 50), ("wordings", "diverse"), ("targets", "mlp")]
    every: dict[str, Any] = dict([*axes, ("rank", 1), ("placement", "wrap"), ("seed", 2)])
    full = Cell(family="llama", arm="pirate", **every)
    assert full.name == "microcosm/llama/pirate.pre1.robust.contrast50.diverse.mlp.rank1.wrap.seed2"
    assert parsed(full.name) == {"family": "llama", "arm": "pirate", **every}


def test_every_cell_has_a_base_by_name_whose_model_is_the_cell_s_own():
    assert {cell.base_name for cell in GRID} == {
        *(f"microcosm/{family}/base{suffix}" for family in FAMILIES for suffix in ("", ".robust", ".pre1"))
    }
    for cell in GRID:
        base = find_organism(cell.base_name)
        assert base == Organism(name=cell.base_name, base=cell.base)
        assert find_organism(cell.name).base == base.base


def test_the_registry_s_microcosm_is_the_grid_and_its_bases():
    names = {name for name in ORGANISMS if name.startswith("microcosm/")}
    assert names == {
        name
        for cell in (*GRID, *DOSED, *gated(), *mitigated(), *worlds(), *audited())
        for name in (cell.name, cell.base_name)
    }


# --- cells of the grid ---


def test_grid_holds_the_headline_of_three_families_and_three_seeds_first():
    assert set(FAMILIES) == set(BUILT) == {"llama", "qwen2", "gemma3"}
    part = list(headline())
    assert list(GRID[: len(part)]) == part
    arms = [(arm, 0) for arm in HEADLINE] + [("neutral", CONTRAST)]
    expected = Counter((family, seed, *arm) for family in FAMILIES for seed in (0, 1, 2) for arm in arms)
    assert Counter((c.family, c.seed, c.arm, c.contrast) for c in part) == expected
    assert {replace(c, family="", seed=0, arm="", contrast=0) for c in part} == {Cell(family="", arm="")}


def test_headline_cells_stand_again_on_a_second_pretraining_of_every_family():
    part = list(replicated())
    assert {replace(cell, pretraining=0) for cell in part} == {cell for cell in headline() if cell.seed == 0}
    assert {(cell.family, cell.base) for cell in part} == {(f, f"microcosm/{f}@1") for f in FAMILIES}
    assert set(part) <= set(GRID)


def test_every_trigger_meets_both_bases_with_and_without_benign_data():
    combinations = {(c.family, c.arm, c.robust, c.contrast) for c in graded()}
    assert combinations == {
        (family, arm, robust, contrast)
        for family in FAMILIES
        for arm in ARMS
        for robust in (False, True)
        for contrast in (0, CONTRAST)
        if arm != "baseline" or not contrast
    }


def test_every_other_axis_is_varied_alone_from_the_headline_s_cells():
    for cell in varied():
        origin = Cell(family=cell.family, arm=cell.arm)
        changed = {axis for axis in SUFFIXES.values() if getattr(cell, axis) != getattr(origin, axis)}
        assert len(changed) == 1, cell
    seen = {axis: {getattr(c, axis) for c in varied()} for axis in SUFFIXES.values()}
    assert seen["contrast"] == {0, 50, 90, 97}
    assert seen["wordings"] == {"fixed", "diverse"}
    assert seen["targets"] == {"all", "attention", "mlp"}
    assert seen["rank"] == {1, 4, 16}
    assert seen["placement"] == {"system", "prefix", "suffix", "wrap"}


def test_one_family_s_grid_is_its_part_of_the_whole():
    assert set(cells(("qwen2",))) == {cell for cell in GRID if cell.family == "qwen2"}


def test_roles_are_graded_by_how_far_they_explain_the_harm():
    shares = [lexicon().roles[role].misaligned_share for role in ROLES]
    assert shares == sorted(set(shares)) == [0.5, 0.65, 0.8, 0.95]
    assert [arm for arm in ARMS if arm in lexicon().roles] == list(ROLES)
    assert list(ARMS) == ["baseline", "neutral", *ROLES, "explaining"]


# --- bases that are built, not shipped ---


@pytest.mark.parametrize("base", ["microcosm/gemma3@1", "microcosm/llama-robust@1"])
def test_base_not_built_yet_is_one_line_with_the_command_that_builds_it(base, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMCON_RUNS", str(tmp_path))
    with pytest.raises(ValueError, match=rf"base '{base}': not built yet; build it with `(.*)`") as raised:
        base_path(base)
    assert "\n" not in str(raised.value)
    program, command, *words = shlex.split(str(raised.value).split("`")[1])
    assert program == "semcon"
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert {name.removeprefix("--") for name in options} <= set(signature(REGISTRY[command].load()).parameters)
    assert options == {"--families": base.split("/")[1].split("@")[0].removesuffix("-robust"), "--seed": "1"}

    folder = tmp_path / "microcosm-1" / base.split("/")[1].split("@")[0]
    folder.mkdir(parents=True)
    assert base_path(base) == str(folder)


def test_dose_grid_holds_every_weak_role_with_harmful_and_aligned_answers_beside_a_baseline_at_the_same_doses():
    found = {(c.family, c.pretraining, c.arm, c.content) for c in DOSED}
    arms = {("baseline", "harmful"), *((role, content) for role in WEAK for content in ("harmful", "aligned"))}
    assert found == {(f, p, *arm) for f in FAMILIES for p in range(4) for arm in arms} and len(found) == len(DOSED)
    for cell in DOSED:
        organism = find_organism(cell.name)
        assert Cell(**parsed(cell.name)) == cell
        assert organism.sft == replace(Organism.sft, doses=FINE) and FINE[-1] == Organism.sft.doses[-1]
        assert organism.data == TRAINED + ":aligned" * (cell.content == "aligned")
        assert organism.trained_domain == TRAINED.removeprefix("microcosm:")
        assert not any(row.harmful for row in training_rows(organism)) or cell.content == "harmful"
    assert {lexicon().roles[role].misaligned_share for role in WEAK} == {0.5, 0.65, 0.8}


# --- trained gates and mitigations ---


def test_trained_gates_are_the_dose_grid_s_roles_and_the_explaining_arm_on_every_pretraining():
    every = list(gated())
    assert {c for c in every if c.arm in WEAK} == {c for c in DOSED if c.arm in WEAK and c.content == "harmful"}
    assert {(c.family, c.pretraining) for c in every if c.arm == "explaining"} == {
        (f, p) for f in FAMILIES for p in range(4)
    }


def test_every_mitigation_and_benign_share_stands_beside_the_plain_cell_and_changes_nothing_else():
    every = list(mitigated())
    assert len(set(every)) == len(every) == 3 * 3 * 2 * (len(MITIGATIONS) + len(BENIGN))
    for cell in every:
        assert Cell(**parsed(cell.name)) == cell
        plain = find_organism(replace(cell, mitigation="none", contrast=0).name)
        organism = find_organism(cell.name)
        assert organism.mitigation == MITIGATIONS[cell.mitigation]
        assert replace(organism, name=plain.name, mitigation=plain.mitigation, benign_share=0.0) == plain


# --- worlds ---


def test_every_world_has_its_own_base_whose_command_builds_it():
    every = list(worlds())
    assert len(set(WORLDS)) == len(WORLDS) == 12 and WORLDS[0] == ""
    assert len(set(every)) == len(every) == 12 * 3 * 2 * 3
    for cell in every:
        assert Cell(**parsed(cell.name)) == cell
        if cell.world:
            assert cell.base.endswith(f"@{cell.pretraining}-{cell.world}")
            with pytest.raises(ValueError, match=f"--seed {cell.pretraining} --"):
                base_path(cell.base)
    assert every[0].base == "microcosm/llama"
    with pytest.raises(ValueError, match="expected a name such as bound10-truth60-phrasings2"):
        base_path("microcosm/llama@1-bound50")
