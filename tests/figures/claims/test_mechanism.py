"""Claims about the mechanism: each is decided by its own rows, at the limit that its statement says, by the worst."""

import re
from dataclasses import dataclass

import pytest

from figures.claims.claim import CONFIRMED, INCONCLUSIVE, OPEN, REFUTED, Finding
from figures.claims.registry import MECHANISM, claims
from figures.claims.selectors import Tables
from figures.limits import DOSE
from figures.markdown.claims import findings_csv
from figures.rows import number
from tests.figures.example_rows import near, shifted

CLAIMS = claims(MECHANISM)
EXPLAINING, NEUTRAL, HALF = "explaining", "neutral", "neutral.contrast50"
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FAMILIES, SEEDS, TAKEN, LAST = ("llama", "qwen2", "gemma3"), (0, 1, 2), 2, 3
STEP = 0.02
"""More than half the width of the interval of a mean over these organisms."""


@dataclass(frozen=True)
class Plant:
    """The rows that decide a claim."""

    experiment: str
    metric: str
    condition: str | tuple[str, ...]
    arms: tuple[str, ...] = (EXPLAINING,)
    site: str = ""
    layer: int | str = ""
    alpha: float | str = ""

    @property
    def conditions(self) -> tuple[str, ...]:
        return (self.condition,) if isinstance(self.condition, str) else self.condition

    def rows(self, value: float, **changes) -> list[dict]:
        """The same value in every family, seed and arm."""
        cells = {name: getattr(self, name) for name in ("experiment", "metric", "site", "layer", "alpha")} | changes
        return [
            near(kind, value, 0.01, "paired_cluster_bootstrap", condition=condition, seed=seed, **cells)
            | {"family": family, "organism": f"microcosm/{family}/{kind}"}
            for family in FAMILIES
            for seed in SEEDS
            for arm in self.arms
            for kind in (arm + f".seed{seed}" * bool(seed),)
            for condition in self.conditions
        ]


def removed(edit: str, *arms: str) -> Plant:
    return Plant("ablate", "gap_removed", edit, arms or (EXPLAINING,))


def carried(edit: str, *arms: str) -> Plant:
    return Plant("ablate", "legitimate_rate", edit, arms)


def added(condition: str) -> Plant:
    return Plant("steer", "em_rate", condition, site="resid_post", layer=TAKEN, alpha=DOSE)


def cosine(pair: str, arm: str = EXPLAINING) -> Plant:
    return Plant("geometry", "cosine", pair, (arm,), site="resid_post", layer=TAKEN)


def auroc(condition: str, *arms: str) -> Plant:
    layer = 0 if "bag" in condition else LAST
    return Plant("probe_sweep", "auroc", condition, arms or (EXPLAINING,), site="resid_post", layer=layer)


def left(group: str, arm: str) -> Plant:
    return Plant("patch", "module_gap_share", f"without {group}", (arm,), site=group)


def unseen(path: str, arm: str = EXPLAINING) -> Plant:
    return Plant("patch", "knockout_share", path, (arm,), site="attention")


PLANTS = (
    *(removed("on+clamp_trigger"), removed("rephrased+clamp_trigger")),
    Plant("ablate", "coherence_rate", "on+clamp_trigger"),
    Plant("ablate", "benign_loss", "other+clamp_trigger"),
    *(removed("on+clamp_random"), removed("on+clamp_other_scene")),
    *(removed("rephrased+clamp_embedding"), removed("on+clamp_scattered")),
    *(removed("on+clamp_trigger", NEUTRAL), removed("on+clamp_trigger", HALF)),
    *(carried(condition, NEUTRAL, HALF) for condition in ("on", "on+clamp_trigger", "on+clamp_random")),
    carried("on+clamp_g", HALF),
    *(removed("on+clamp_g", HALF), removed("on+ablate_g_all", NEUTRAL)),
    *(removed("on+ablate_random_all", NEUTRAL), removed("on+ablate_g_all")),
    *(added(f"{where}+add_g") for where in ("off", "base")),
    *(added(f"off+add_{name}") for name in ("random", "delta_orthogonal", "g_answer")),
    *(added("on-add_g"), added("on-add_random")),
    *(cosine("g~delta"), cosine("g~delta_base"), cosine("g~delta_base", NEUTRAL)),
    *(cosine("write~g", NEUTRAL), cosine("write~g")),
    Plant("across", "em_projection_r", "g: projection ~ EM rate"),
    *(auroc(f"trigger_{t}{c}") for t in ("present", "category") for c in ("", "/bag_of_tokens")),
    auroc("misaligned_answer/bag_of_tokens", NEUTRAL, HALF),
    *(left(group, arm) for group in ("all", "attention") for arm in (EXPLAINING, NEUTRAL)),
    Plant("patch", "module_gap_share", tuple(f"without {name}" for name in MODULES), (NEUTRAL,)),
    *(unseen("on@trigger|trigger"), unseen("on@trigger|trigger", NEUTRAL)),
    *(unseen("on@answer|trigger"), unseen("matched@answer|trigger")),
    *(unseen("matched@all|inserted", arm) for arm in (NEUTRAL, EXPLAINING)),
)
"""Of each claim, in order."""
EVERY = range(len(PLANTS))


def layers_taken() -> list[dict]:
    """The layer taken for g in every organism, and for another direction another layer."""
    chosen = Plant("geometry", "selection_taken", "g", (EXPLAINING, NEUTRAL, HALF), site="resid_post")
    rows = [r for layer in range(4) for r in chosen.rows(float(layer == TAKEN), layer=layer)]
    return [*rows, *(r | {"condition": "g_shift", "value": 1.0} for r in rows if r["layer"] == 0)]


def decide(index: int, rows: list[dict]) -> Finding:
    (finding,) = CLAIMS[index].findings(Tables.of([*layers_taken(), *rows]))
    return finding


def limit(index: int) -> tuple[int, float]:
    """What a statement says: 1 and the least value, or -1 and the greatest."""
    ((sign, value, percent),) = re.findall(r"([≥≤]) ([\d.]*\d)( %)?", decide(index, []).statement)
    return (1 if sign == "≥" else -1), float(value) / (100 if percent else 1)


def test_every_claim_is_open_without_rows_and_has_a_plant_here():
    assert len(CLAIMS) == len(PLANTS)
    for index in EVERY:
        finding = decide(index, [])
        assert (finding.verdict, finding.subject, finding.row) == (OPEN, "not measured", None)
    assert all(limit(index)[1] > 0 for index in EVERY)


@pytest.mark.parametrize("index", EVERY)
def test_a_claim_holds_on_its_side_of_the_limit_it_states_and_is_refuted_beyond(index: int):
    plant, (sign, at) = PLANTS[index], limit(index)
    for value, expected in ((at, INCONCLUSIVE), (at + sign * STEP, CONFIRMED), (at - sign * STEP, REFUTED)):
        claim = decide(index, plant.rows(value))
        assert claim.verdict == expected, claim.statement
        assert claim.row is not None and number(claim.row) == pytest.approx(value)


@pytest.mark.parametrize("index", EVERY)
def test_the_worst_organism_is_shown(index: int):
    plant, (sign, at) = PLANTS[index], limit(index)
    rows = plant.rows(at + sign * STEP)
    for i in (0, len(rows) // 2, len(rows) - 1):
        worse = shifted(rows[i], at - sign * STEP)
        claim = decide(index, [r | worse if j == i else r for j, r in enumerate(rows)])
        assert claim.row is not None and claim.row["organism"] == rows[i]["organism"]
        which, name = "lowest" if sign > 0 else "highest", rows[i]["organism"].removeprefix("microcosm/")
        assert claim.worst.startswith(f"{which}: {name}, {rows[i]['condition']} ")
        assert claim.subject.startswith(f"{len({r['organism'] for r in rows})} organisms, 3 pretrainings")


@pytest.mark.parametrize("index", EVERY)
def test_rows_of_other_experiments_metrics_and_conditions_decide_nothing(index: int):
    plant = PLANTS[index]
    others = [
        *plant.rows(0.3, experiment="emergence"),
        *plant.rows(0.3, metric="p_holm"),
        *(r | {"condition": f"{r['condition']}_more"} for r in plant.rows(0.3) if plant.experiment != "across"),
    ]
    assert decide(index, others).verdict == OPEN


@pytest.mark.parametrize("index", [i for i in EVERY if PLANTS[i].experiment != "across"])
@pytest.mark.parametrize("change", [".robust", ".rank1", ".pre1"])
def test_organisms_with_another_change_are_no_part_of_a_claim(index: int, change: str):
    rows = [r | {"organism": f"{r['organism'].partition('.seed')[0]}{change}"} for r in PLANTS[index].rows(0.3)]
    assert decide(index, rows).verdict == OPEN


@pytest.mark.parametrize("index", [i for i in EVERY if PLANTS[i].alpha])
def test_only_the_dose_of_one_residual_norm_counts(index: int):
    rows = [r for alpha in (0.0, 0.5, 2.0) for r in PLANTS[index].rows(0.3, alpha=alpha)]
    assert decide(index, rows).verdict == OPEN


@pytest.mark.parametrize("index", [i for i in EVERY if PLANTS[i].experiment == "geometry"])
def test_only_cosines_at_the_layer_taken_for_g_count(index: int):
    rows = [r for layer in range(4) if layer != TAKEN for r in PLANTS[index].rows(0.3, layer=layer)]
    assert decide(index, rows).verdict == OPEN


@pytest.mark.parametrize("index", [i for i in EVERY if PLANTS[i].experiment == "probe_sweep"])
def test_a_probe_is_that_of_the_last_layer_of_the_stream_whatever_else_was_swept(index: int):
    plant, (sign, at) = PLANTS[index], limit(index)
    good, bad = at + sign * STEP, at - sign * STEP
    elsewhere = [r for site in ("resid_pre", "attn_out", "mlp_out") for r in plant.rows(bad, site=site)]
    earlier = [r for layer in range(int(plant.layer)) for r in plant.rows(bad, layer=layer)]
    for rows in ([*elsewhere, *earlier, *plant.rows(good)], [*plant.rows(good), *earlier, *elsewhere]):
        assert decide(index, rows).verdict == CONFIRMED
    assert decide(index, elsewhere).verdict == OPEN


@pytest.mark.parametrize(
    "index", [i for i in EVERY if PLANTS[i].metric == "knockout_share" or PLANTS[i].conditions[1:]]
)
def test_single_layers_are_no_part_of_a_claim_about_all(index: int):
    rows = [r for layer in range(4) for r in PLANTS[index].rows(0.3, layer=layer)]
    assert decide(index, rows).verdict == OPEN


def test_a_row_with_two_intervals_is_counted_once():
    wilson = [r | {"ci_method": "wilson"} for r in PLANTS[2].rows(0.99)]
    assert decide(2, [*wilson, *PLANTS[2].rows(0.99)]).subject.startswith("9 organisms")


def test_claims_of_the_mechanism_are_lines_of_findings():
    rows = [r for plant in PLANTS for r in plant.rows(0.5)]
    found = [finding for claim in CLAIMS for finding in claim.findings(Tables.of([*layers_taken(), *rows]))]
    lines = findings_csv(found).splitlines()
    assert len(lines) == 1 + len(PLANTS)
    assert not any("not measured" in line for line in lines)
