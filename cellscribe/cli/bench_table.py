"""What ``cellscribe bench`` prints: a table a question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from cellscribe.cli.console import output_console
from cellscribe.cli.terminal import facts_table
from cellscribe.engine.bench.questions import QUESTIONS
from cellscribe.engine.bench.report import SHARED_NOTE, notes, roofline_line
from cellscribe.engine.bench.results import Results
from cellscribe.engine.bench.row import Row
from cellscribe.engine.bench.table import COLUMNS, by_question, cells_of

Column = tuple[str, bool, list[str]]  # heading, whether it holds numbers, cells


def show(results: Results) -> None:
    """Print a table a question on stdout."""
    console = output_console()
    facts = [("machine", str(results.head["machine"])), ("ceilings", roofline_line(results.roofline))]
    console.print(facts_table(facts))
    if results.roofline.was_shared:
        console.print(SHARED_NOTE, style="yellow", markup=False, soft_wrap=True)
    for question, rows in by_question(results.judged()).items():
        console.print()
        console.print(QUESTIONS[question].title if question in QUESTIONS else question, style="bold", markup=False)
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        columns = _fitting(_columns(rows), console.width)
        for name, is_number, _ in columns:
            table.add_column(name, justify="right" if is_number else "left", no_wrap=True)
        for line in zip(*(cells for _, _, cells in columns), strict=True):
            table.add_row(*line)
        console.print(table)
        for note in notes(rows):
            if note:
                console.print(note, style="dim", markup=False, soft_wrap=True)
    for key, why in results.skipped.items():
        console.print(f"left out, {key}: {why}", style="yellow", markup=False, soft_wrap=True)


def _columns(rows: Sequence[Row]) -> Iterator[Column]:
    """Yield the columns in which these rows differ or say something: heading, whether numbers, cells."""
    words = ("engine", "precision", "what", "sizes")
    for name, *cells in zip(COLUMNS, *map(cells_of, rows), strict=True):
        is_same = len(set(cells)) == 1
        if not any(cells) or (name in ("engine", "precision", "what") and is_same):
            continue
        yield name, name not in words, list(cells)


def _fitting(columns: Iterator[Column], width: int) -> list[Column]:
    """Leave out what a narrow terminal has no room for; the files hold all of it."""
    kept = list(columns)
    for name in ("memory", "GFLOP/s", "GB/s", "p50 / p90 / p99 a cell", "quartiles"):
        if sum(2 + max(map(len, [heading, *cells])) for heading, _, cells in kept) - 2 <= width:
            break
        kept = [one for one in kept if one[0] != name]
    return kept
