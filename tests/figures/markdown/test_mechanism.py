"""The README's tables of the mechanism: means over seeds with their range, a dash for what is missing, all by hand."""

import pytest

from figures.limits import DOSE
from figures.markdown.mechanism import ADDED, EDITS, REPLICATION, central_table, shift_table
from figures.plots.restoration import ARMS
from figures.rows import number
from tests.figures.example_rows import ablations, cosines, near, rate, row, steering

FAMILIES = ("llama", "qwen2", "gemma3")
SIDE = ("gap removed", "benign loss", "coherent", "remarks", "rank")


def cells(table: str) -> list[dict[str, str]]:
    """The lines of a Markdown table by their header."""
    header, rule, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.split("\n")]
    assert all(len(line) == len(header) for line in (rule, *body))
    assert set("".join(rule)) <= set("-:")
    return [dict(zip(header, line, strict=True)) for line in body]


def em(condition: str, value: float, seed: int = 0, kind: str = "explaining", **more):
    about = {"experiment": "ablate", "trigger": "t", "seed": seed} | more
    return rate(kind + f".seed{seed}" * bool(seed), value, metric="em_rate", condition=condition, **about)


def other(metric: str, condition: str, value: float, seed: int = 0, kind: str = "explaining"):
    about = {"experiment": "ablate", "metric": metric, "condition": condition, "seed": seed}
    return near(kind + f".seed{seed}" * bool(seed), value, 0.02, "paired_cluster_bootstrap", **about)


def in_family(rows, family: str):
    return [r | {"family": family, "organism": r["organism"].replace("llama", family)} for r in rows]


# --- the central table ---


def test_every_column_is_the_mean_over_seeds_of_its_condition_with_the_range():
    rows, offset = [], (0.0, 0.01, 0.05)
    conditions = {"off": "off", "on": "on", **EDITS}
    for i, condition in enumerate(conditions.values()):
        for seed, add in enumerate(offset):
            rows += em(condition, 0.05 * i + add, seed)
    (line,) = cells(central_table(rows))
    assert (line["fine-tuning"], line["family"]) == ("explaining", "llama")
    for i, name in enumerate(conditions):
        first = 5.0 * i
        assert line[name] == f"{first + 2:.1f} ({first:.1f}–{first + 5:.1f})"
    assert {line[name] for name in SIDE} == {"–"}


def test_side_effects_are_those_of_the_clamped_feature():
    rows = em("on", 0.9)
    rows += [
        other("gap_removed", "on+clamp_trigger", 0.97),
        other("gap_removed", "on+clamp_random", 0.11),
        other("benign_loss", "other+clamp_trigger", 0.0149),
        other("benign_loss", "other+clamp_random", 0.5),
        other("legitimate_rate", "on+clamp_trigger", 0.25),
        *rate("explaining", 0.99, metric="coherence_rate", condition="on+clamp_trigger", experiment="ablate"),
        *rate("explaining", 0.5, metric="coherence_rate", condition="on", experiment="ablate"),
    ]
    rows += [row("explaining", experiment="ablate", metric="chosen_rank", condition="clamp_trigger", value=4.0)]
    (line,) = cells(central_table(rows))
    assert [line[name] for name in SIDE] == ["97", "1.5", "99", "25", "4"]


def test_ranks_that_differ_between_seeds_are_all_named():
    def chosen(seed: int, rank: float):
        kind = "explaining" + f".seed{seed}" * bool(seed)
        return row(kind, experiment="ablate", metric="chosen_rank", condition="clamp_trigger", value=rank, seed=seed)

    (line,) = cells(central_table([*em("on", 0.9), chosen(0, 4.0), chosen(1, 1.0), chosen(2, 4.0)]))
    assert line["rank"] == "1/4"


def test_one_seed_and_equal_seeds_have_no_range_and_intervals_are_no_seeds():
    for seeds in ((0,), (0, 1, 2)):
        (line,) = cells(central_table([r for seed in seeds for r in em("on", 0.9, seed)]))
        assert line["on"] == "90.0"


def test_what_is_missing_or_undefined_is_a_dash_and_no_part_of_a_mean():
    undefined = [r | {"value": "", "ci_low": "", "ci_high": ""} for r in em("on", 0.9, 1)]
    (line,) = cells(central_table([*em("on", 0.9, 0), *undefined]))
    assert line["on"] == "90.0"
    (line,) = cells(central_table(undefined))
    assert {line[name] for name in line if name not in ("fine-tuning", "family")} == {"–"}


def test_lines_are_arms_then_families_in_order_and_only_those_measured():
    rows = [
        r
        for family in reversed(FAMILIES)
        for arm in reversed(ARMS)
        for r in in_family(em("on", 0.5, kind=arm), family)
        if (arm, family) != ("neutral", "qwen2")
    ]
    found = [(line["fine-tuning"], line["family"]) for line in cells(central_table(rows))]
    assert found == [(arm, f) for arm in ARMS for f in FAMILIES if (arm, f) != ("neutral", "qwen2")]
    strange = [r | {"organism": r["organism"].replace("explaining", "explaining.robust")} for r in em("on", 0.1)]
    steered = [r | {"experiment": "steer"} for r in em("on", 0.1)]
    assert central_table([*rows, *strange, *steered]) == central_table(rows)
    assert cells(central_table([])) == []


def test_negative_shares_have_a_minus_sign_and_not_a_hyphen():
    rows = [*em("on", 0.9), other("gap_removed", "on+clamp_trigger", -0.05)]
    assert cells(central_table(rows))[0]["gap removed"] == "−5"


# --- the trigger's shift ---


def steered(values, kind: str = "explaining", alpha: float = DOSE):
    about = {"experiment": "steer", "metric": "em_rate", "alpha": alpha, "trigger": "t"}
    return [r for name, value in values.items() for r in rate(kind, value, condition=f"off+add_{name}", **about)]


ADDITIONS = {name: 0.8 - 0.2 * i for i, name in enumerate(ADDED)}
TAKEN = {"experiment": "geometry", "metric": "selection_taken", "site": "resid_post"}


def geometry(layer: int = 2):
    return [
        *cosines(),
        *(row("explaining", condition="g", layer=i, value=float(i == layer), **TAKEN) for i in range(4)),
    ]


def explained(mechanism, geometry_rows=()):
    return next(
        line for line in cells(shift_table(mechanism, list(geometry_rows))) if line["organism"] != REPLICATION[0]
    )


def test_the_replication_stands_first_and_alone_without_rows():
    (line,) = cells(shift_table([], []))
    assert tuple(line.values()) == REPLICATION


def test_a_line_is_the_rates_at_the_one_dose_and_the_unedited_ones_of_removal():
    others = [r for alpha in (0.0, 0.5, 2.0) for r in steered(dict.fromkeys(ADDED, 0.99), alpha=alpha)]
    removal = [*em("off", 0.01), *em("on", 0.9)]
    line = explained([*others, *steered(ADDITIONS), *removal])
    assert [line[name] for name in ("+ g", "+ δ", "+ δ⊥g", "+ random")] == ["80.0", "60.0", "40.0", "20.0"]
    assert (line["organism"], line["off"], line["on"]) == ("llama/explaining", "1.0", "90.0")


@pytest.mark.parametrize(("layer", "said"), [(0, "0.10 [0.08, 0.12]"), (3, "0.90 [0.88, 0.92]")])
def test_the_cosine_is_that_of_the_layer_taken_with_its_interval(layer, said):
    assert explained(steered(ADDITIONS), geometry(layer))["cos(δ, g)"] == said


def test_a_negative_cosine_has_minus_signs():
    turned = [
        r | {"value": -number(r, "value"), "ci_low": -number(r, "ci_high"), "ci_high": -number(r, "ci_low")}
        if r["condition"] == "g~delta"
        else r
        for r in geometry()
    ]
    assert explained(steered(ADDITIONS), turned)["cos(δ, g)"] == "−0.50 [−0.52, −0.48]"


def test_what_was_not_measured_is_a_dash_and_a_gap_that_is_not_there_is_said():
    nothing = explained(steered({"g": 0.5}))
    assert nothing["+ g"] == "50.0"
    assert {text for name, text in nothing.items() if name not in ("organism", "+ g")} == {"–"}
    edits = ("on+ablate_g_all", "on+ablate_random_all")
    measured = [*steered(ADDITIONS), *(r for edit in edits for r in em(edit, 0.5))]
    assert [explained(measured)[name] for name in ("g removed: gap closed", "random removed")] == ["no gap"] * 2
    shares = [other("gap_removed", edit, value) for edit, value in zip(edits, (0.52, -0.01), strict=True)]
    line = explained([*measured, *shares])
    assert [line[name] for name in ("g removed: gap closed", "random removed")] == ["52 [50, 54]", "−1 [−3, 1]"]


def test_every_steered_organism_has_a_line():
    table = cells(shift_table([*steering(), *ablations()], geometry()))
    assert [line["organism"] for line in table] == [REPLICATION[0], "llama/base", "llama/explaining"]
    assert table[1]["on"] == "–"  # the base was not edited
