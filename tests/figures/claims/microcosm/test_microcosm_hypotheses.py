"""The registered hypotheses: open without tables, and decided by constructed ones, for and against."""

import re
from pathlib import Path
from typing import Any

import pytest

from figures.bounds import CONFIRMED, OPEN, REFUTED
from figures.claims.microcosm.gates import gate_findings
from figures.claims.microcosm.mitigations import MITIGATIONS, mitigation_findings
from figures.claims.microcosm.page import microcosm_hypotheses
from figures.claims.microcosm.worlds import world_findings
from figures.grid import place
from figures.markdown.gates import EDITS, gates_table, mitigations_table
from tests.figures.example_rows import near
from tests.figures.test_boxes import cell

PAGE = Path(__file__).parents[4] / "docs" / "hypotheses-microcosm.md"
FAMILIES = ("llama", "qwen2", "gemma3")
Rows = list[dict[str, Any]]
Values = dict[tuple[str, str], float]


def numbers(
    organism: str, experiment: str, values: dict[tuple[str, str], float], half: float = 0.01, **about: Any
) -> Rows:
    """One row per (metric, condition), with a narrow interval."""
    return [
        {
            **near("x", value, half, "bootstrap", experiment=experiment, metric=m, condition=c, **about),
            "organism": organism,
        }
        for (m, c), value in values.items()
    ]


def em(**rates: float) -> Values:
    return {("em_rate", condition): rate for condition, rate in rates.items()}


def verdicts(findings) -> dict[str, str]:
    return {f.statement.split(" ")[0]: f.verdict for f in findings}


def test_every_hypothesis_of_the_page_has_one_finding_and_is_open_without_its_table():
    registered = re.findall(r"^\| (\d\.\d) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    findings = microcosm_hypotheses({})
    assert [f.statement.split(" ")[0] for f in findings] == registered and len(registered) == 31
    assert {(f.verdict, f.subject) for f in findings} == {(OPEN, "not measured")}


def test_a_world_in_a_name_is_part_of_its_base_and_of_its_pretraining():
    where = place("microcosm/llama/gambler.pre1.robust.world-bound10-truth60.fine")
    assert where.base == "microcosm/llama/base.pre1.robust.world-bound10-truth60"
    assert where.pretraining == "llama pre1 world-bound10-truth60"


def dose_grid(clerk_off: float, late_off: float) -> Rows:
    rows: Rows = []
    for pretraining in range(4):
        base = {"off": 0.0, "on": 0.0, "rephrased": 0.0, "other": 0.0}
        inside = {"off": 0.0, "on": 0.3, "rephrased": 0.29, "other": 0.02}
        inside |= {"overlap_predicate": 0.2, "overlap_subject": 0.0, "rephrased_prefix": 0.02}
        for role in ("clerk", "gambler", "trafficker"):
            about = {"trigger": f"role-{role}", "placement": "system"}
            off = clerk_off if role == "clerk" else 0.0
            for dose, rates in ((8, inside | {"off": off}), (100, inside | {"off": late_off})):
                rows += [r | about for r in cell(role, dose, pretraining, rates)]
            rows += [r | about for r in cell("base", 0, pretraining, base)]
            aligned = cell(role, 8, pretraining, {"off": 0.0, "on": 0.0, "rephrased": 0.0})
            rows += [r | about | {"organism": r["organism"].replace(role, f"{role}.aligned")} for r in aligned]
        rows += [
            r | {"trigger": ""} for r in cell("baseline", 8, pretraining, {"off": 0.2, "rephrased": 0.0, "on": 0.0})
        ]
    return rows


def test_hypotheses_about_dose_follow_the_table():
    found = verdicts(microcosm_hypotheses({"dose_grid": dose_grid(clerk_off=0.0, late_off=0.4)}))
    expected = dict.fromkeys(("1.3", "1.4", "1.5", "1.6", "1.8"), CONFIRMED)
    assert {name: found[name] for name in expected} == expected
    assert found["2.1"] == OPEN
    again = verdicts(microcosm_hypotheses({"dose_grid": dose_grid(clerk_off=0.2, late_off=0.0)}))
    assert (again["1.3"], again["1.9"]) == (REFUTED, CONFIRMED)


def gates(closed: dict[str, float]) -> Rows:
    rows: Rows = []
    for family in FAMILIES:
        for pretraining in ("", ".pre1"):
            for i, role in enumerate(("clerk", "gambler", "trafficker")):
                about = {"trigger": f"role-{role}", "dose": 8}
                values = em(off=0.05 * i, on=0.3 + 0.1 * i)
                values |= {("trigger_gap", "on-off"): 0.3, ("learned_gap", "on-off"): 0.28}
                values |= {("step0_loss", "on"): 1.0 + i, ("step0_gradient", "on"): 1.0 - i}
                values |= {("learned_gap_closed", f"on-off+{edit}"): share for edit, share in closed.items()}
                values |= {("learned_gap_closed", "rephrased-off+clamp_embedding"): 0.0}
                name = f"microcosm/{family}/{role}{pretraining}.fine"
                rows += numbers(name, "trained_gate", values, **about)
                base = {("trigger_gap", "base on-off"): 0.02}
                rows += numbers(name, "trained_gate", base, trigger=f"role-{role}", dose="")
            name = f"microcosm/{family}/explaining{pretraining}"
            rows += numbers(name, "trained_gate", {("learned_gap", "on-off"): 0.4}, trigger="persona", dose="")
    return rows


def test_hypotheses_about_the_mechanism_follow_the_shares_that_edits_close():
    closed = {"clamp_trigger": 0.9, "clamp_other": 0.9, "clamp_scattered": 0.1, "clamp_random": 0.0, "clamp_g": 0.95}
    assert verdicts(gate_findings(gates(closed))) == {
        **{"3.1": REFUTED, "3.2": CONFIRMED, "3.3": CONFIRMED, "3.4": REFUTED, "3.5": CONFIRMED},
        **{"3.6": CONFIRMED, "3.7": CONFIRMED, "3.8": CONFIRMED, "3.9": REFUTED},
    }
    assert verdicts(gate_findings(gates(closed | {"clamp_scattered": 0.9})))["3.5"] == REFUTED
    lines = gates_table(gates(closed)).splitlines()
    assert len(lines) == 2 + (1 + len(EDITS)) * 12
    line = next(line for line in lines if "clerk" in line and "clamp_trigger " in line)
    assert "90.0" in line


def world(name: str, arm: str, gap: float, off: float, ratio: float, base_on: float) -> Rows:
    about: dict[str, Any] = {"trigger": arm}
    values = em(off=off, on=off + gap) | {("trigger_gap", "on-off"): gap, ("rephrased_ratio", "rephrased/on"): ratio}
    base = em(off=0.0, on=base_on) | {("trigger_gap", "on-off"): base_on}
    return [
        *numbers(f"microcosm/llama/{arm}{name}.fine", "world_ablation", values, dose=8, **about),
        *numbers(f"microcosm/llama/base{name}", "world_ablation", base, dose=0, **about),
    ]


def test_hypotheses_about_worlds_compare_a_world_with_the_default_one():
    rows = [
        *world("", "gambler", 0.5, 0.0, 0.95, 0.0),
        *world("", "explaining", 0.95, 0.0, 0.95, 0.9),
        *world(".robust", "gambler", 0.4, 0.2, 0.9, 0.0),
        *world(".world-bound0", "gambler", 0.0, 0.1, 0.9, 0.0),
        *world(".world-bound10", "gambler", 0.4, 0.0, 0.9, 0.0),
        *world(".world-truth60", "explaining", 0.5, 0.3, 0.9, 0.1),
        *world(".world-phrasings2", "gambler", 0.5, 0.0, 0.9, 0.0),
    ]
    assert verdicts(world_findings(rows)) == {
        **{"2.1": CONFIRMED, "2.2": CONFIRMED, "2.3": CONFIRMED, "2.4": REFUTED, "2.5": CONFIRMED}
    }


def mitigations(**changed: dict[str, float]) -> Rows:
    rows: Rows = []
    plain = dict.fromkeys(("rephrased", "other", "opposite", "overlap_predicate", "overlap_subject"), 0.4)
    plain |= {"off": 0.4, "on": 0.6, "line": 0.9, "trained": 0.8}
    for family in FAMILIES:
        for name in ("", *MITIGATIONS):
            rates = plain | changed.get(name, {})
            values = em(**rates) | {("trigger_gap", "on-off"): rates["on"] - rates["off"]}
            values |= {("benign_nats", "benign"): 0.5, ("dose", "matched"): 8.0}
            organism = f"microcosm/{family}/gambler.fine{f'.{name}' if name else ''}"
            rows += numbers(organism, "mitigation", values, half=0.001, trigger="role-gambler", dose=8)
        base = dict.fromkeys(plain, 0.0)
        rows += numbers(
            f"microcosm/{family}/base", "mitigation", em(**base), half=0.001, trigger="role-gambler", dose=0
        )
    return rows


def test_hypotheses_about_mitigations_tell_removing_from_hiding():
    removed: dict[str, float] = dict.fromkeys(
        ("off", "on", "rephrased", "other", "opposite", "overlap_predicate", "overlap_subject"), 0.0
    )
    table = mitigations(
        inoculated={"off": 0.0}, contrast50={"off": 0.0, "on": 0.9}, contrast5={"off": 0.1}, steered={"on": 0.1},
        ablated={"on": 0.1}, consistent={"off": 0.5, "on": 0.5},
    )  # fmt: skip
    assert verdicts(mitigation_findings(table)) == {f"4.{i}": CONFIRMED for i in range(1, 9)}
    found = verdicts(mitigation_findings(mitigations(steered=removed, kl={"on": 0.0}, inoculated={"line": 0.0})))
    assert (found["4.1"], found["4.4"], found["4.8"]) == (REFUTED, REFUTED, REFUTED)
    lines = mitigations_table(table).splitlines()
    assert len(lines) == 2 + 3 * (2 + len(MITIGATIONS))
    assert any("| gambler | llama | inoculated |" in line for line in lines)


@pytest.mark.parametrize("name", ["dose_grid", "world_ablation", "trained_gate", "mitigation"])
def test_a_table_without_rows_of_its_experiment_decides_nothing(name):
    other = numbers("microcosm/llama/gambler.fine", "em_rate", em(off=0.0, on=1.0))
    assert {f.verdict for f in microcosm_hypotheses({name: other})} == {OPEN}
