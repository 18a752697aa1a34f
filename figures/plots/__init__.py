"""One module a figure: table rows in, a drawn figure out.

Every figure module has ``TITLE``, ``READING`` (how to read it), ``CONTROL`` (what must differ), ``METRICS``, and three
functions of the rows: ``wanted(rows)`` picks its own rows, ``draw(rows)`` returns a Figure, ``caption(rows)`` a text.
"""

FIGURES = (
    *("phase_diagram", "em_by_condition", "grid_effects", "emergence"),
    *("projections", "geometry", "probe_auroc", "dose_response", "ablation"),
)
"""Figure modules in the order in which the report shows them."""
