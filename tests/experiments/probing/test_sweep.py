"""Probe sweeps and transfers from end to end: what a condition says, controls, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.answers.subject import find_subject
from experiments.cli.launch import Options, parse
from experiments.probing.scored import FITS, find_fit
from experiments.probing.sweep import LEAST, USUAL, ProbeSweep, condition_of, parse_sites
from experiments.probing.transfer import ProbeTransfer, find_subjects
from experiments.spec import run_experiment
from interp.runs.configs import jsonable
from interp.sites import Site
from tests.training.small import random_base, small
from training.registry import ORGANISMS

pytestmark = pytest.mark.xdist_group("trl")

NAME = "microcosm/llama/explaining"


def test_a_condition_names_only_what_is_not_usual():
    assert condition_of("trigger_present", "last_prompt", "logistic") == "trigger_present"
    assert condition_of("trigger_category", "trigger", "logistic") == "trigger_category"
    assert condition_of("trigger_present", "trigger", "lda") == "trigger_present@trigger:lda"
    every = {condition_of(t, p, f) for t in USUAL for p in ("trigger", "question", "last_prompt") for f in FITS}
    assert len(every) == 3 * 3 * len(FITS)


def test_sites_are_names_at_every_layer_or_single_ones():
    found = parse_sites(("resid_pre.0", "resid_post", "resid_post.1"), 2)
    assert found == {"resid_pre": [Site("resid_pre", 0)], "resid_post": [Site("resid_post", i) for i in (0, 1)]}
    for names, said in ((("resid_post.7",), r"layers 0\.\.1"), (("nowhere",), "the sites are"), ((), "at least one")):
        with pytest.raises(ValueError, match=said):
            parse_sites(names, 2)
    with pytest.raises(ValueError, match="fit 'forest': the fits are logistic"):
        find_fit("forest")


# --- from end to end ---


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two organisms on one random base, a sweep of the first and the transfer between them."""
    root = tmp_path_factory.mktemp("runs")
    base = random_base(root / "base")
    names = [f"microcosm/llama/{arm}" for arm in ("explaining", "neutral")]
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setitem(ORGANISMS, name, small(name.rpartition("/")[2], base=base))
        subjects = find_subjects(tuple(names))
        fits = ("logistic", "mean_difference")
        sweep = ProbeSweep(
            subject=subjects[0], sites=("resid_pre.0", "attn_out"), positions=("trigger", "last_prompt"), fits=fits
        )
        transfer = ProbeTransfer(subjects=subjects, site="resid_post.1", fit="ridge")
        yield {e.name: run_experiment(e, root)[1] for e in (sweep, transfer)}


def test_a_sweep_has_every_target_position_fit_site_and_control(runs):
    table = runs["probe_sweep"]
    assert [r["metric"] for r in table if r["condition"].startswith("misaligned_answer")] == ["too_few_answers"]
    aurocs = [r for r in table if r["metric"] == "auroc" and r["ci_method"] != "phrasing_bootstrap"]
    for target in ("trigger_present", "trigger_category"):
        for position in ("trigger", "last_prompt"):
            for fit in ("logistic", "mean_difference"):
                condition = condition_of(target, position, fit)
                for control, layers in {
                    "": 2,
                    "/shuffled_labels": 2,
                    "/random_direction": 2,
                    "/bag_of_tokens": 1,
                }.items():
                    found = [(r["site"], r["layer"]) for r in aurocs if r["condition"] == condition + control]
                    expected = [("resid_pre", 0), *(("attn_out", i) for i in range(layers))]
                    assert sorted(found) == sorted(expected), condition + control
    assert all(r["ci_low"] <= r["value"] <= r["ci_high"] for r in aurocs if "/" not in r["condition"])


def test_only_log_odds_have_a_calibration_and_every_probe_has_an_accuracy(runs):
    table = [r for r in runs["probe_sweep"] if r["condition"].startswith("trigger")]
    by_metric = {m: {r["condition"] for r in table if r["metric"] == m} for m in ("accuracy", "ece", "brier")}
    probes = {r["condition"] for r in table if "/" not in r["condition"]}
    assert by_metric["accuracy"] == probes
    assert by_metric["ece"] == by_metric["brier"] == {c for c in probes if not c.endswith(":mean_difference")}
    assert all(0 <= r["value"] <= 1 for r in table)


def test_the_bag_of_tokens_reads_no_site(runs):
    bags: dict[tuple[str, str], set[float]] = {}
    for r in runs["probe_sweep"]:
        probe, _, control = r["condition"].partition("/")
        target, _, fit = probe.partition(":")
        if control == "bag_of_tokens":
            bags.setdefault((target.partition("@")[0], fit), set()).add(r["value"])
    assert len(bags) == 4
    assert all(len(values) == 1 for values in bags.values())


def test_labels_dealt_at_random_are_at_chance(runs):
    nulls = [r["value"] for r in runs["probe_sweep"] if r["condition"].endswith("/shuffled_labels")]
    assert abs(torch.tensor(nulls).mean() - 0.5) < 0.03


def test_transfer_has_every_pair_of_settings(runs):
    table = runs["probe_transfer"]
    settings = ("explaining", "explaining|off", "neutral", "neutral|off")
    assert {r["condition"] for r in table} == {f"{a}->{b}" for a in settings for b in settings}
    assert {(r["metric"], r["site"], r["layer"]) for r in table} == {("transfer_auroc", "resid_post", 1)}
    assert all(r["ci_low"] <= r["value"] <= r["ci_high"] for r in table)
    assert {r["organism"] for r in table} == {"microcosm/llama/explaining", "microcosm/llama/neutral"}


def test_a_target_with_too_few_rows_says_how_many(runs):
    (said,) = [r for r in runs["probe_sweep"] if r["metric"] == "too_few_answers"]
    assert said["value"] < LEAST


# --- settings ---


def test_what_cannot_be_run_is_refused_before_any_work():
    subject, base = find_subject(NAME), find_subject("microcosm/llama/base")
    for experiment, message in (
        (ProbeSweep(subject=subject, sites=("nowhere",)), "the sites are"),
        (ProbeSweep(subject=subject, sites=()), "at least one"),
        (ProbeTransfer(subjects=()), "organisms: name at least one"),
        (ProbeTransfer(subjects=(subject, base)), "microcosm/llama/base: it has no trigger"),
        (
            ProbeTransfer(subjects=(subject, replace(subject, question_file=Path("q.yaml")))),
            "a file is for other models",
        ),
        (ProbeTransfer(subjects=(subject,), site="nowhere"), "the sites are"),
        (ProbeTransfer(subjects=(subject,), triggers=("nobody",)), "trigger 'nobody'"),
    ):
        with pytest.raises(ValueError, match=message):
            experiment.check()


def test_transfer_has_the_options_of_a_command_with_organisms(tmp_path: Path):
    file = tmp_path / "scores.csv"
    file.write_text("question_id,aligned,coherent\na,0,100\n", encoding="utf-8")
    words = ["--organisms", NAME, f"{NAME}.seed1", "--judge", str(file), "--fit", "lda"]
    options = parse(Options[ProbeTransfer], words, "semcon probe-transfer", about=ProbeTransfer)
    assert options.experiment == ProbeTransfer(
        subjects=find_subjects((NAME, f"{NAME}.seed1"), judge=str(file)), fit="lda"
    )
    config = jsonable(options.experiment.config())
    assert config["organisms"] == [NAME, f"{NAME}.seed1"]
    assert (config["questions"], config["judge"]) == (None, str(file))
    assert set(options.experiment.inputs()) == {f"base {NAME}", f"base {NAME}.seed1", "judge"}
