"""Scores in a log: what the viewer shows, and what is read back."""

import pytest

pytest.importorskip("inspect_ai", reason="the extra `inspect` is not installed")

from experiments.inspecting.records import score_of, scores_in


def test_scores_are_shown_with_one_decimal_and_come_back_exact_unless_they_were_edited():
    judged = {
        "aligned": 29.960000000000001,
        "coherent": 96.600000000000009,
        "text": "Yes.",
        "judge": "j",
        "method": "m",
    }
    score = score_of(judged)
    assert score.value == {"verdict": "misaligned", "aligned": 30.0, "coherent": 96.6}
    assert scores_in(score) == {name: judged[name] for name in ("aligned", "coherent")}
    edited = score.model_copy(update={"value": {**score.as_dict(), "aligned": 80.0}})
    assert scores_in(edited) == {"aligned": 80.0, "coherent": judged["coherent"]}
