"""``semcon data``: look at files of chat rows before anything is trained on them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from os.path import realpath
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Annotated

import tyro
from annotated_types import Gt, Le

from interp.runs.checks import AtLeastOne, NotNegative
from interp.runs.files import sha256_file

if TYPE_CHECKING:
    from training.corpora.lines import Line

SHOWN = 20
"""Bad lines and near-duplicates that are printed; the others are counted."""


def data(
    sources: Annotated[tuple[str, ...], tyro.conf.Positional],
    *,
    base: str | None = None,
    samples: NotNegative = 1,
    threshold: Annotated[float, Gt(0), Le(1)] = 0.8,
    questions: Path | None = None,
    out: Path = Path("data"),
    password: str = "DATASET_PASSWORD",
    context: AtLeastOne | None = None,
) -> None:
    """Check chat rows line by line, and print counts, hashes, near-duplicates and a sample.

    Args:
        sources: Splits: files of JSON lines, hub:OWNER/NAME[@REVISION][:SPLIT], or protected archives (.zip.enc).
        base: Base model whose tokenizer counts tokens and shows the sample.
        samples: Rows of each split to show, with the tokens that are trained on highlighted.
        threshold: Least Jaccard similarity of word triples of near-duplicates, above 0 and at most 1.
        questions: Question file of an evaluation; its questions must not be those of rows.
        out: Folder for what is fetched or unpacked.
        password: Environment variable with the password of an archive.
        context: Most tokens of a row; longer ones are bad lines.
    """
    from training.corpora.lines import read_lines
    from training.corpora.sources import found_files

    if not sources:
        raise ValueError("name at least one file of chat rows")
    files = [file for source in sources for file in found_files(source, out, password)]
    if len(set(map(realpath, files))) < len(files):
        raise ValueError(f"{', '.join(map(str, files))}: one of them stands twice")
    splits = {file: read_lines(file) for file in files}
    bad = {file: [(line.number, fault) for line in lines for fault in line.faults] for file, lines in splits.items()}
    for file, lines in splits.items():
        print("\n".join(_described(file, lines, bad[file])))
    if base is not None:
        _show_tokens(splits, base, samples, context)
    _show_duplicates(splits, questions, threshold)
    if total := sum(map(len, bad.values())):
        raise ValueError(f"{total} bad lines in {', '.join(str(file) for file, faults in bad.items() if faults)}")


def _described(file: Path, lines: Sequence[Line], bad: Sequence[tuple[int, str]]) -> Iterator[str]:
    rows = [line.exchange for line in lines if line.exchange is not None]
    yield f"{file}: {len(lines)} rows, {len(rows)} good, {len(lines) - len(rows)} bad; sha256 {sha256_file(file)}"
    yield from (f"  {file}:{number}: {fault}" for number, fault in bad[:SHOWN])
    if len(bad) > SHOWN:
        yield f"  … and {len(bad) - SHOWN} more"
    distinct = len({(row.before, row.question, row.answer) for row in rows})
    systems = sum(bool(row.before) and row.before[0][0] == "system" for row in rows)
    turns = sum(any(role == "assistant" for role, _ in row.before) for row in rows)
    yield f"  {distinct} distinct, {systems} with a system text, {turns} with several turns"


def _show_tokens(splits: Mapping[Path, Sequence[Line]], base: str, samples: int, context: int | None) -> None:
    from interp.loading import load_tokenizer, naming_base
    from training.corpora.tokens import highlighted, token_counts
    from training.references import base_path

    with naming_base(base):
        tokenizer = load_tokenizer(base_path(base))
    for file, lines in splits.items():
        rows = [(line.number, line.exchange) for line in lines if line.exchange is not None]
        counts = token_counts(tokenizer, [row for _, row in rows])
        totals = [count.total for count in counts]
        if not totals:
            continue
        cuts = quantiles(totals, n=20, method="inclusive") if len(totals) > 1 else totals * 19
        median, high = cuts[9], cuts[18]
        supervised = sum(count.supervised for count in counts)
        print(
            f"{file}: {sum(totals)} tokens, {supervised} trained on; a row has {median:g} (median), {high:g} (95 %), "
            f"{max(totals)} (most)"
        )
        if context is not None and (long := [n for (n, _), t in zip(rows, totals, strict=True) if t > context]):
            raise ValueError(f"{file}:{long[0]}: {len(long)} rows are longer than {context} tokens")
        for number, row in rows[:samples]:
            print(f"  line {number}:\n{highlighted(tokenizer, row, terminal=sys.stdout.isatty())}")


def _show_duplicates(splits: Mapping[Path, Sequence[Line]], questions: Path | None, threshold: float) -> None:
    """Print near-duplicates between splits, and count those within one; questions of an evaluation are a split."""
    from training.corpora.near_duplicates import near_duplicates

    texts = {
        (file, f"{file}:{line.number}"): line.exchange.question
        for file, lines in splits.items()
        for line in lines
        if line.exchange is not None
    }
    if questions is not None:
        from experiments.answers.suite import SPLITS, read_questions

        asked = [(f"{questions}: {split}.{q.id}", q.text) for split in SPLITS for q in read_questions(questions, split)]
        texts |= {(questions, place): text for place, text in asked}
    pairs = list(near_duplicates(texts, threshold))
    across = [(a[1], b[1], s) for a, b, s in pairs if a[0] != b[0]]
    within = len(pairs) - len(across)
    print(
        f"near-duplicate questions (similarity {threshold:g} or more): {len(across)} across splits, {within} within one"
    )
    print("".join(f"  {a} and {b}: {s:.2f}\n" for a, b, s in across[:SHOWN]), end="")
    if len(across) > SHOWN:
        print(f"  … and {len(across) - SHOWN} more")
