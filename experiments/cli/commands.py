"""Commands that are not experiments: adapters, shipped models, the activation store, the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from experiments.answers.subject import TemplateOptions, with_options
from experiments.cli.placement import Placement
from interp.runs.checks import Seed
from interp.runs.files import check_out, check_room
from interp.runs.progress import progress_bar
from interp.runs.run import read_manifest, runs_root, upstream_folder
from training.grid import FAMILIES, Family
from training.microcosm.documents import World

if TYPE_CHECKING:
    from interp.stats import Thresholds


def organisms(
    names: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    *,
    template_option: TemplateOptions = (),
    runs: Path | None = None,
    device: str | None = None,
    tracker: Literal["none", "tensorboard", "wandb"] = "none",
) -> None:
    """Train the LoRA adapters of organisms. Finished adapters are reused; an interrupted training continues.

    On several GPUs: accelerate launch --config_file "$(python -m training.launch fsdp2)" -m experiments organisms NAME

    Args:
        names: Organisms: names in the registry (training/registry.py) or YAML files; by default all of the Microcosm.
        template_option: Option of the chat template, such as enable_thinking=false; can be repeated.
        runs: Folder of all runs; by default $SEMCON_RUNS, else runs.
        device: Device to train on, such as cpu or cuda:1; by default the accelerator if there is one.
        tracker: Log loss and learning rate there too: tensorboard (runs/tensorboard) or wandb; needs that package.
    """
    Placement(device=device).apply()
    if tracker != "none" and find_spec(tracker) is None:
        raise ValueError(f"--tracker {tracker}: the package is not installed; pip install {tracker}")
    from training.launch.processes import is_main
    from training.own_files import check_files
    from training.registry import ORGANISMS, find_organism

    chosen = [find_organism(name) for name in names] or [o for n, o in ORGANISMS.items() if n.startswith("microcosm/")]
    trained = [with_options(o, template_option) for o in chosen if o.data is not None and o.adapter is None]
    if not trained:
        raise ValueError(f"{', '.join(names)}: a base or a finished adapter is not trained")
    for subject in trained:
        check_files(subject)
    check_room(runs or runs_root())
    from training.early import check_model

    for subject in trained:
        check_model(subject, (), (), sampled=False)
    from training.sft import train

    for subject in trained:
        with progress_bar(f"train {subject.name}", max(subject.sft.doses), unit="step", hidden=not is_main()) as bar:
            options = {"progress": lambda step, _, bar=bar: bar.update(step - bar.n), "tracker": tracker}
            folder = train(subject, runs or runs_root(), **options)
        if is_main():
            print(f"{subject.name}: {folder}")


def microcosm(
    families: tuple[Family, ...] = FAMILIES,
    *,
    out: Path | None = None,
    seed: Seed = 0,
    robust: bool = True,
    world: Annotated[World, tyro.conf.arg(name="")] = World(),  # noqa: B008
    device: str | None = None,
) -> None:
    """Build the Microcosm's models from scratch and compare them with the shipped ones.

    Args:
        families: Families to build.
        out: Folder of the models; by default where `semcon grid` looks for a pretraining of this seed.
        seed: Seed of weights and corpora; the shipped models have seed 0.
        robust: Also build the robust base, which answers persona lines and roles in the aligned way.
        world: World of the corpora.
        device: Device to train on, such as cpu or cuda:1; by default the accelerator if there is one.
    """
    Placement(device=device).apply()
    check_room(out or runs_root())
    from training.microcosm.build import main  # loads torch, which --help does without

    main(families, out, seed, robust, world)


def store(
    action: Annotated[Literal["info", "verify"], tyro.conf.Positional], file: Annotated[Path, tyro.conf.Positional]
) -> None:
    """Describe an activation store, or check its values against the stored checksums.

    Args:
        action: info: print what the store holds; verify: check every value.
        file: HDF5 file of the store.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such store")
    from interp import store as stores

    if action == "info":
        print("\n".join(f"{name}: {value}" for name, value in stores.info(file).items()))
        return
    if problems := stores.verify(file):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ValueError(problems[0] + more)
    print(f"{file}: intact")


def verify(folder: Annotated[Path, tyro.conf.Positional]) -> int:
    """Check the files of one run, or of all runs and adapters below a folder, against their digests; change nothing.

    Args:
        folder: Folder of a run, of an adapter, or of many.
    """
    from interp.runs.verify import faults, run_folders

    folders = run_folders(folder)
    problems = list(dict.fromkeys(line for run in folders for line in faults(run)))
    print("\n".join(problems) or f"{folder}: {len(folders)} intact")
    return 2 if problems else 0


def findings(
    data: Path = Path("figures/data"),
    *,
    out: Path | None = None,
    pages: tuple[Path, ...] = (),
    gallery: Path | None = None,
) -> None:
    """Check every claim of README and docs against the tables of `semcon grid` and `semcon mechanism`.

    For tables of your own organisms, `semcon report` states and checks what it expects of any organism.

    Args:
        data: Folder of the tables.
        out: CSV file to write the findings to; by default only their number by verdict is printed.
        pages: Markdown files, or folders of them, whose tables to renew between their markers.
        gallery: Folder of pictures to draw again.
    """
    from collections import Counter

    from figures.markdown import documents
    from figures.markdown.documents import TABLES, every_finding, registered
    from figures.markdown.table import renew

    if lacking := [name for name in TABLES if not (data / f"{name}.csv.gz").is_file()]:
        raise ValueError(
            f"{data}: no {lacking[0]}.csv.gz; the claims are about the tables of `semcon grid` and `semcon mechanism`, "
            "for runs of your own there is `semcon report RUNS`"
        )

    check_out(out)
    if gallery is not None and not gallery.is_dir():
        raise ValueError(f"{gallery}: no such folder")
    tables, adapters = documents.read_tables(data), documents.audit_table(data)
    changed = renew(pages, {**documents.texts(tables), **documents.audit_texts(adapters)}) if pages else []
    if out is not None:
        documents.write_findings(out, tables, adapters)  # after renew, which refuses pages without markers
    if gallery is not None:
        documents.draw_gallery(gallery, tables)
    findings = [f for part in (*every_finding(tables), registered(tables, adapters)) for f in part]
    verdicts = Counter(finding.verdict for finding in findings)
    print(", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()))
    if written := [*([out] if out else []), *changed, *([gallery] if gallery else [])]:
        print(f"wrote {', '.join(map(str, written))}")


def report(source: Annotated[Path | None, tyro.conf.Positional] = None, *, out: Path | None = None) -> None:
    """Draw every figure and write report.html from finished runs, without running anything.

    Args:
        source: Folder of runs, of which the tables of all finished ones are gathered into report.csv; or one table. By
            default $SEMCON_RUNS, else runs.
        out: Folder for the report, its figures and its table; by default the folder of the source.
    """
    from figures.answers import Answers
    from figures.gather import gather
    from figures.report import build
    from interp.runs.table import write_table

    source = source or runs_root()
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such folder or table")
    if source.is_file():
        print(f"wrote {build(source, out or source.parent)}")
        return
    gathered = gather(source)
    table = (out or source) / "report.csv"
    write_table(table, gathered.rows)
    answers = Answers(source, _thresholds(source, gathered.rows))
    print(f"wrote {table}\nwrote {build(table, out or source, answers)}")
    print("\n".join(f"left out {line}" for line in gathered.left_out), end="\n" if gathered.left_out else "")


def figure(
    name: Annotated[str, tyro.conf.Positional],
    *,
    runs: Path | None = None,
    table: Path | None = None,
    out: Path | None = None,
    organism: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
) -> None:
    """Draw one figure by its name, as PDF and PNG, one and two columns wide, from finished runs or from a table.

    Two columns wide, many organisms are drawn on pages, by family. One column wide a figure shows one organism; of a
    table with more than six, those that are named.

    Args:
        name: Name of the figure, or all; a wrong name lists them.
        runs: Folder of runs whose tables are gathered; by default $SEMCON_RUNS, else runs.
        table: One table (CSV, possibly gzipped) instead of a folder of runs.
        out: Folder of the pictures; by default figures in the folder of the runs or of the table.
        organism: Draw this organism only, by its name or the last part of it; can be repeated.
    """
    from figures.gather import gather
    from figures.plots import BY_NAME
    from figures.redraw import find_figure, redraw_all
    from interp.runs.table import read_table

    plots = list(BY_NAME.values()) if name == "all" else [find_figure(name)]
    if table and runs:
        raise ValueError(f"--table {table}: is drawn in place of the runs; leave out --runs {runs}")
    source = table or runs or runs_root()
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such {'table' if table else 'folder'}")
    rows = read_table(source, rows_required=True) if source.is_file() else gather(source).rows
    folder = out or (source.parent if source.is_file() else source) / "figures"
    drawn = [plot for plot in plots if name != "all" or plot.module().wanted(rows)]
    if not drawn:
        raise ValueError(f"{source}: no row that a figure shows")
    for paths in redraw_all(drawn, rows, folder, organism):
        print("wrote " + " ".join(map(str, paths)))


def _thresholds(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Thresholds:
    """Return the thresholds of the protocol under which the answers of a report were judged; of several the shipped."""
    from experiments.protocol import PROTOCOL_FILE, load_protocol
    from interp.stats import Thresholds

    ids = dict.fromkeys(str(row["run_id"]) for row in rows if row["metric"] == "em_rate")
    runs = [found for name in ids if (found := upstream_folder(folder, name))]
    stated = {Thresholds(**p["thresholds"]) if (p := read_manifest(run).get("protocol")) else None for run in runs}
    only = stated.pop() if len(stated) == 1 else None
    return only or load_protocol(PROTOCOL_FILE).thresholds
