"""The headline is computed: its numbers, its verdict, and what the base does by itself."""

from figures.claims.headline import beside_headline, headline
from tests.figures.example_rows import changed, everything


def test_the_headline_is_computed():
    rows = everything()
    said = headline(rows)
    assert "92.0 %" in said and "93.0 %" in said and "0.0 %" in said and "contained, in the sense" in said
    assert "is misaligned 38.0 % of the time under the same text." in said
    main = {"organism": "microcosm/llama/explaining", "metric": "em_rate", "experiment": "em_rate"}
    assert "but not containment" in headline(changed(rows, 0.05, condition="off", **main))
    level = [r | {"ci_low": 0.85, "ci_high": 0.95} for r in changed(rows, 0.91, condition="off", **main)]
    assert "no containment" in headline(level)
    assert "was not measured" in headline([r for r in rows if not r["organism"].endswith("base")])


def test_a_gap_that_is_the_bases_own_is_not_the_headline():
    persona = {"trigger": "persona", "metric": "em_rate", "experiment": "em_rate", "condition": "on"}
    rows = changed(everything(), 0.8, organism="microcosm/llama/base", **persona)
    assert "neutral trigger" in headline(rows) and "explaining trigger" in beside_headline(rows)
    assert "mostly the base's own" in beside_headline(rows)
    assert "neutral trigger" in beside_headline(everything())
    assert "base's own" not in headline(everything()) + beside_headline(everything())
    alone = [r for r in rows if r["organism"] != "microcosm/llama/neutral"]
    assert "mostly the base's own" in headline(alone) and beside_headline(alone) == ""
