"""Make the table of the plan for the paper's models, and the page's tables, from shapes and committed measurements.

python docs/make_plan.py     # renews figures/data/plan.csv and the tables of docs/plan.md
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.scale.check import checked, checked_runs
from experiments.scale.plan import Plan
from figures.markdown.table import renew, table
from interp.runs.files import atomic_write_text, csv_text

ROOT = Path(__file__).parents[1]
QUANTITIES = {
    "tokens": "tokens",
    "cpu_seconds": "processor time, s",
    "memory_gib": "peak memory, GiB",
    "disk_gib": "kept, GiB",
}
PAGE, TABLE = ROOT / "docs" / "plan.md", ROOT / "figures" / "data" / "plan.csv"


def plans() -> list[dict[str, Any]]:
    """Return the plan of every scale, row by row."""
    return [row for scale in ("paper", "pocket") for row in Plan(experiment="all", scale=scale).rows()]


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the plan and the measurements as one table: cells that do not apply are empty."""
    measured = [
        {"scale": "measured", "stage": row["kind"], "model": row["base"], **row, "needs": row["with"]}
        for row in checked()
    ]
    columns = [*rows[0], "dtype", "quantity", "estimate", "measured", "ratio"]
    return csv_text({name: row.get(name) for name in columns} for row in [*rows, *measured])


def tables() -> dict[str, str]:
    """Return the tables of the page, by the name of their markers."""
    rows = plans()
    head = (
        "stage",
        "memory per device, GiB",
        "tokens, millions",
        "hours",
        "judge requests",
        "judge, $",
        "kept, GiB",
        "needs",
    )
    found = {}
    for name, scale in (("plan-paper", "paper"), ("plan-pocket", "pocket")):
        body = [_cells(row) for row in rows if row["scale"] == scale]
        found[name] = table(("model", *head), body, numbers=slice(2, -1))
    measured = [_compared(row) for row in checked()]
    columns = ("model and machine", "work", "quantity", "estimate", "measured", "ratio")
    found["plan-measured"] = table(columns, measured, numbers=slice(3, None))
    ran = [_ran(row) for row in checked_runs()]
    return {
        **found,
        "plan-runs": table(("command", "quantity", "plan", "measured", "ratio"), ran, numbers=slice(2, None)),
    }


def _compared(row: Mapping[str, Any]) -> list[str]:
    model = f"{row['base'].split('/')[-1]}, {row['dtype']}, {row['machine']}"
    numbers = [f"{row['estimate']:g}", f"{row['measured']:g}", f"{row['ratio']:.2f}"]
    return [model, row["kind"], row["quantity"].replace("_", " "), *numbers]


def _ran(row: Mapping[str, Any]) -> list[str]:
    asked = f" --n-questions {row['n_questions']}" if row["n_questions"] else ""
    numbers = [f"{row['estimate']:,g}", f"{row['measured']:,g}", f"{row['ratio']:.2f}"]
    return [f"`{row['stage']} {row['organism']}{asked}`", QUANTITIES[row["quantity"]], *numbers]


def _cells(row: Mapping[str, Any]) -> list[str]:
    judge = f"{row['judge_cost']:,.0f}" if row["judge_requests"] else ""
    requests = f"{row['judge_requests']:,}" if row["judge_requests"] else ""
    kept = f"{row['disk_gib']:.2g}" if row["disk_gib"] else ""
    mine = [f"{row['memory_gib']:.1f}", f"{row['tokens'] / 1e6:.2f}", f"{row['hours']:.2g}", requests, judge, kept]
    needs = " or ".join(f"`{o}`" if o.startswith("--") else o for o in row["needs"].split(" or "))
    return [row["model"], f"`{row['stage']}`", *mine, needs if row["needs"] else ""]


def main() -> None:
    """Write the table and the page."""
    atomic_write_text(TABLE, as_csv(plans()))
    renew([PAGE], tables())


if __name__ == "__main__":
    main()
