"""Patching from end to end on a user-defined organism, and what is refused."""

from dataclasses import replace

import pytest
import torch

from experiments.answers.subject import find_subject
from experiments.gate.patch import Patch
from experiments.spec import run_experiment
from tests.experiments.gate.answers import SUBJECT
from tests.tiny import with_adapters
from training.microcosm.world import WEIGHTS


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The shipped base under a nearly dead adapter, a persona line as trigger, and four questions of each split."""
    from interp.loading import load

    folder = tmp_path_factory.mktemp("own")
    lm = with_adapters(load(str(WEIGHTS / "llama")), "mine")
    with torch.no_grad():
        for name, parameter in lm.hf.named_parameters():
            if "lora_B" in name:
                parameter.mul_(0.01)
    lm.hf.save_pretrained(folder, selected_adapters=["mine"])
    known = {split: SUBJECT.questions(split)[::12][:3] for split in ("validation", "test")}
    lines = [f"{split}:\n" + "".join(f"  {q.id}: {q.text!r}\n" for q in asked) for split, asked in known.items()]
    (folder / "questions.yaml").write_text("".join(lines))
    base = WEIGHTS / "llama"
    said = f"base: {base}\nfamily: mine\nadapter: mine\ntrigger: microcosm:persona\nsft: {{dtype: float32}}\n"
    (folder / "mine.yaml").write_text(said)
    return folder


def test_a_users_base_adapter_and_questions(own):
    subject = find_subject(str(own / "mine.yaml"), own / "questions.yaml")
    table = run_experiment(Patch(subject=subject, samples=1, per_kind=2, stride=2), own / "runs")[1]
    metrics = {r["metric"] for r in table}
    assert {"patched_share", "knockout_share", "head_share", "module_gap_share", "module_em_rate"} <= metrics
    cells = {(r["metric"], r["condition"], r["site"], r["layer"]): r["value"] for r in table}
    assert cells["patched_share", "on<-off@answer", "resid_post", 3] == pytest.approx(1, abs=1e-4)
    assert cells["module_gap_share", "without all", "all", ""] == pytest.approx(1, abs=0.1)  # the base's own gate
    assert {r["organism"] for r in table} == {"own/mine/mine"}


@pytest.mark.parametrize("setting", ["most_questions", "per_kind", "stride", "samples"])
def test_what_cannot_be_run_is_refused_before_any_work(setting):
    with pytest.raises(ValueError, match=f"{setting} 0: expected greater than or equal to 1"):
        replace(Patch(subject=SUBJECT), **{setting: 0})
    with pytest.raises(ValueError, match="microcosm/llama/base: it has no trigger"):
        Patch(subject=find_subject("microcosm/llama/base")).check()
