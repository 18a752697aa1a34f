"""The patching map is a pure function of table rows, shows what is in them, and copes with what is missing."""

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer

from figures import style
from figures.plots import patching
from figures.rows import select
from interp.runs.table import row

LAYERS, HEADS = 3, 4


def example(organism="microcosm/llama/neutral", *, heads=True, modules=True, layers=LAYERS):
    rows = []

    def put(metric: str, condition: str, value: float, site: str = "", layer: int | str = "", **more):
        ends = {"ci_low": value - 0.05, "ci_high": value + 0.05, "ci_method": "paired_cluster_bootstrap"}
        about = {"experiment": "patch", "organism": organism, "family": "llama", "seed": 0, "trigger": "desert"}
        cells = {"metric": metric, "condition": condition, "site": site, "layer": layer, "value": value, **ends}
        rows.append(row(**about, **cells, n=24, n_clusters=24, **more))

    for pair in patching.PAIRS:
        for i, position in enumerate(patching.POSITIONS):
            for site in patching.SITES:
                for layer in range(layers):
                    put("patched_share", f"{pair}@{position}", i * layer / 10, site, layer)
            put("patched_share", f"{pair}@{position}", 0.9, "attn_out")
        for head in range(HEADS if heads else 0):
            for layer in range(layers):
                put("head_share", f"{pair}@decision", -head * layer / 10, f"head.{head}", layer)
    for side in ("on", "matched"):
        for name in patching.KNOCKOUTS:
            for layer in (*range(layers), ""):
                put("knockout_share", f"{side}@{name}", 0.5 if side == "on" else 0.0, "attention", layer)
    for side in ("on", "off"):
        put("em_rate", side, 0.8 if side == "on" else 0.1)
        for group in ("attention", "mlp", "all") if modules else ():
            put("module_em_rate", f"{side} without {group}", 0.4 if side == "on" else 0.1)
        for layer in range(layers if modules else 0):
            put("module_em_rate", f"{side} without layer", 0.4 if side == "on" else 0.1, layer=layer)
    for group in ("attention", "mlp", "all"):
        put("module_gap_share", f"without {group}", 0.5, group)
    return rows


def texts(figure):
    return [t.get_text() for ax in figure.findobj(lambda a: hasattr(a, "texts")) for t in ax.texts]


def test_same_rows_same_bytes_and_every_cell_says_its_number():
    rows = example()
    figure = patching.draw(rows)
    assert style.to_bytes(figure, "png") == style.to_bytes(patching.draw(rows), "png")
    written = texts(figure)
    assert written.count("60") >= 2 * len(patching.SITES)  # answer, layer 2
    assert "-60" in written  # head 3, layer 2


def test_organisms_stand_below_each_other_up_to_a_page():
    one = patching.draw(example())
    two = patching.draw([*example(), *example("microcosm/llama/explaining")])
    many = [r for i in range(6) for r in example(f"microcosm/llama/neutral.seed{i}")]
    assert two.get_figheight() > one.get_figheight()
    assert len({r["organism"] for r in patching.wanted(many)}) == patching.MOST
    assert patching.draw(many).get_figheight() < 11


@pytest.mark.parametrize("left_out", [{"heads": False}, {"modules": False}, {"layers": 40}])
def test_a_part_that_was_not_measured_is_left_out(left_out):
    assert style.to_bytes(patching.draw(example(**left_out)), "pdf")


def test_one_family_alone_and_other_experiments_not():
    other = [r | {"family": "qwen2", "organism": "microcosm/qwen2/neutral"} for r in example()]
    strange = [r | {"experiment": "em_rate"} for r in example()]
    assert patching.wanted([*example(), *other, *strange]) == example()
    with pytest.raises(ValueError, match="figure patching: no row with metric patched_share"):
        patching.draw(strange)


def test_the_caption_counts_questions():
    said = patching.caption(example())
    assert "24 questions" in said and "paired by question" in said
    assert patching.TITLE and patching.READING and patching.CONTROL
    assert set(patching.METRICS) == {r["metric"] for r in example()}
    assert select(example(), metric="patched_share")


def test_an_organism_without_a_gap_has_its_rates_alone():
    flat = [r for r in example("microcosm/llama/robust") if "share" not in r["metric"]]
    assert style.to_bytes(patching.draw([*example(), *flat]), "png")
    assert style.to_bytes(patching.draw(flat), "png")


def one_site():
    """Shares at one site, with both controls."""
    shares = [r for r in example() if r["metric"] == "patched_share" and r["site"] == "resid_post"]
    pairs = {"on<-off": "off<-on", "off<-other": "on<-rephrased"}
    copied = [
        r | {"condition": f"{pairs[pair]}@{at}"} for r in shares for pair, _, at in [str(r["condition"]).partition("@")]
    ]
    return [r for r in [*shares, *copied] if r["layer"] != ""]


def test_interchange_at_one_site_alone_is_drawn_with_intervals_beside_its_controls():
    rows = one_site()
    figure = patching.draw(rows)
    assert patching.of_one_site(rows) and not patching.of_one_site(example())
    assert style.to_bytes(figure, "png") == style.to_bytes(patching.draw(rows), "png")
    assert len(figure.axes) == len(patching.MOVED) * LAYERS
    drawn = [c for ax in figure.axes for c in ax.containers if isinstance(c, ErrorbarContainer)]
    assert len(drawn) == 2 * len(figure.axes)
    assert sum(np.size(bars.lines[0].get_xdata()) for bars in drawn) == len(rows)
    assert "rephrasing" in patching.caption(rows) and "heads" not in patching.caption(rows).lower()


def test_every_organism_has_its_panels_at_one_site():
    rows = one_site()
    other = [r | {"organism": "microcosm/llama/explaining"} for r in rows]
    figure = patching.draw([*rows, *other])
    assert len(figure.axes) == 2 * len(patching.MOVED) * LAYERS
    named = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert len(named) == 2 and len(set(named)) == 2
    assert patching.draw(rows).get_figheight() < figure.get_figheight()
