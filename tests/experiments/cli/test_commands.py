"""The small commands: what they write, and what they refuse."""

from pathlib import Path

from experiments.__main__ import main
from figures.markdown.documents import TABLES
from interp.runs.table import read_table, write_table

ROOT = Path(__file__).parents[3]


def test_findings_name_the_table_or_the_marker_that_is_missing_and_write_nothing(tmp_path, capsys):
    assert main(["findings", "--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"semcon findings: {tmp_path}: no containment_grid.csv.gz; the claims are about the tables of `semcon grid` "
        "and `semcon mechanism`, for runs of your own there is `semcon report RUNS`\n"
    )
    for table in (f"{name}.csv.gz" for name in TABLES):
        write_table(tmp_path / table, read_table(ROOT / "figures" / "data" / table)[:40])
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n")
    assert main(["findings", "--data", str(tmp_path), "--pages", str(readme)]) == 2
    expected = "no page holds <!-- boxes:begin --> or the marker of another table"
    assert capsys.readouterr().err == f"semcon findings: {readme}: {expected}\n"
    assert readme.read_text() == "# Title\n"
    assert not (tmp_path / "findings.csv").exists()
