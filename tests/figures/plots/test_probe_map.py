"""The probe map shows every AUROC of the table where its condition says, and says what the table says."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.collections import PolyCollection

from figures import style
from figures.plots import probe_map
from tests.figures.example_rows import near, probes

FITS, POSITIONS, SITES = ("", ":ridge"), ("", "@question"), {"resid_pre": (0,), "resid_post": (0, 1, 2, 3)}
CONTROLS = {"": 0.9, "/shuffled_labels": 0.5, "/random_direction": 0.6, "/bag_of_tokens": 0.39}


def sweep(kind: str = "explaining") -> list[dict]:
    out = []
    for target in ("trigger_present", "trigger_category"):
        for place in POSITIONS:
            for fit in FITS:
                for control, value in CONTROLS.items():
                    for site, layers in SITES.items():
                        for layer in layers[:1] if control == "/bag_of_tokens" else layers:
                            cells = {"condition": f"{target}{place}{fit}{control}", "site": site, "layer": layer}
                            cells |= {"experiment": "probe_sweep", "metric": "auroc", "trigger": "persona"}
                            out.append(near(kind, value + 0.02 * layer, 0.03, "cluster_bootstrap", **cells))
    return out


def squares(ax) -> list:
    return [path for drawn in ax.collections if isinstance(drawn, PolyCollection) for path in drawn.get_paths()]


def said(ax) -> list[str]:
    return [text.get_text() for text in ax.texts if text.get_text()[:1] in ".1"]


@pytest.mark.parametrize(
    ("condition", "parts"),
    [
        ("trigger_present", ("trigger_present", "last_prompt", "logistic", "")),
        ("trigger_category", ("trigger_category", "trigger", "logistic", "")),
        ("misaligned_answer/bag_of_tokens", ("misaligned_answer", "response_mean", "logistic", "bag_of_tokens")),
        ("trigger_present@question:lda/shuffled_labels", ("trigger_present", "question", "lda", "shuffled_labels")),
    ],
)
def test_a_condition_is_read_back(condition: str, parts: tuple[str, ...]):
    assert probe_map.parse(condition) == parts


def test_every_auroc_and_control_is_a_square():
    figure = probe_map.draw(sweep())
    assert len(figure.axes) == 2 * len(FITS)
    for ax in figure.axes:
        lines = len(POSITIONS) * len(SITES)
        assert len(squares(ax)) == len(POSITIONS) * (1 + 4) + lines * 3
        assert sorted(said(ax))[-1] == ".96"
        assert said(ax).count(".39") == lines
    assert [ax.get_title().strip() for ax in figure.axes] == ["logistic", "ridge"] * 2


def test_lines_follow_the_prompt_and_the_forward_pass():
    labels = [label.get_text() for label in probe_map.draw(sweep()).axes[0].get_yticklabels()]
    assert labels == [
        *("question · embedding", "question · resid post"),
        *("last prompt · embedding", "last prompt · resid post"),
    ]


def test_a_plain_sweep_of_one_fit_is_drawn_in_a_column():
    figure = probe_map.draw(probes())
    assert figure.get_figwidth() == style.COLUMN
    assert style.to_bytes(figure, "pdf")


def test_a_deep_model_has_colours_without_numbers():
    same = {"condition": "trigger_present", "site": "resid_post", "experiment": "probe_sweep", "metric": "auroc"}
    rows = [near("explaining", 0.8, 0.1, "cluster_bootstrap", layer=layer, **same) for layer in range(48)]
    ax = probe_map.draw(rows).axes[0]
    assert len(squares(ax)) == 48
    assert not said(ax)
    assert len(ax.get_xticks()) <= 6 + 3


def test_several_organisms_fit_a_page():
    figure = probe_map.draw([*sweep("explaining"), *sweep("neutral")])
    assert figure.get_figheight() < 9
    first, again = style.to_bytes(figure, "png"), style.to_bytes(figure, "png")
    assert first == again


def test_the_caption_says_counts_and_intervals():
    text = probe_map.caption(sweep())
    assert "n = 960 examples from 48 questions" in text
    assert "0.03 to a side" in text
    assert "nan" not in text and "?" not in text


def test_no_rows_is_an_error_that_names_the_metric():
    with pytest.raises(ValueError, match="no row with metric auroc"):
        probe_map.draw([r | {"metric": "accuracy"} for r in sweep()])


def test_a_missing_interval_is_no_width():
    rows = [r | {"ci_low": "", "ci_high": ""} for r in sweep()]
    assert math.isfinite(probe_map.draw(rows).get_figheight())


def test_the_map_loads_without_torch():
    code = "import sys, figures.plots.probe_map; print('torch' in sys.modules)"
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
