"""What ``compare`` does, step by step: check, open, compare, write, show."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cellscribe.cli.console import error_console, notes, output_console
from cellscribe.engine.cells import CellSource, open_cells
from cellscribe.engine.errors import UsageError
from cellscribe.engine.instruct.compare_settings import CompareSettings
from cellscribe.engine.instruct.comparison import Comparison, compare_cells
from cellscribe.engine.labelling.markers import read_markers
from cellscribe.engine.output.atomic import replacing
from cellscribe.engine.output.comparison_report import spaces, write_comparison_report
from cellscribe.engine.output.files import check_output, check_outputs
from cellscribe.engine.output.run import count
from cellscribe.engine.output.text import printable


@dataclass(frozen=True)
class Side:
    """Cells of one file, and how they are read."""

    path: Path
    label: str
    layer: str | None = None
    values: Literal["auto", "counts", "lognorm"] = "auto"

    def opened(self) -> CellSource:
        """Open them."""
        return open_cells(self.path, layer=self.layer, values=self.values)


@dataclass(frozen=True)
class CompareJob:
    """One call of ``compare``."""

    generated: Side
    real: Side
    output: Path
    settings: CompareSettings
    json: Path | None = None
    markers: Path | None = None
    is_quiet: bool = False

    def check(self) -> None:
        """Raise UsageError or OutputError unless every output that is named can be written."""
        outputs = {self.output: ".html"} | ({} if self.json is None else {self.json: ".json"})
        for path, suffix in outputs.items():
            for side in (self.generated, self.real):
                check_output(path, side.path, (suffix,))
        check_outputs(outputs)


def compare_files(job: CompareJob) -> int:
    """Compare the cells of two files, write and show what is found, and return the exit code."""
    job.check()
    markers = None if job.markers is None else read_markers(job.markers)
    started = time.perf_counter()
    with job.generated.opened() as generated, job.real.opened() as real:
        notes([*_facts("generated", generated), *_facts("real", real)], job.is_quiet)
        with _working(job.is_quiet):
            found = compare_cells(
                generated,
                real,
                label=job.generated.label,
                label_real=job.real.label,
                markers=markers,
                markers_from=str(job.markers),
                settings=job.settings,
            )
    write_comparison_report(found, job.output)
    if job.json is not None:
        with replacing(job.json) as part:
            part.write_text(json.dumps(found.as_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    _show(found)
    _finish(job, found, time.perf_counter() - started)
    return 0


def numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of "5,10"; UsageError for anything else."""
    parts = [one.strip() for one in text.split(",") if one.strip()]
    if not parts or not all(one.isdecimal() for one in parts):
        raise UsageError(f"--neighbours is {text!r}; give whole numbers with commas between them, as 5,10,25.")
    return tuple(map(int, parts))


def _facts(name: str, source: CellSource) -> Iterator[tuple[str, str]]:
    yield name, f"{source.name}, {count(source.n_cells, 'cell')} × {count(source.n_genes, 'gene')}"
    yield "values", source.value_note


@contextmanager
def _working(quiet: bool) -> Iterator[None]:
    """Show that something is done, on a terminal."""
    console = error_console()
    if quiet or not console.is_terminal:
        yield
        return
    with console.status("comparing"):
        yield


def _show(found: Comparison) -> None:
    from rich.table import Table

    shown = spaces(found)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    table.add_column("k", justify="right")
    for name, _ in shown:
        table.add_column(name, justify="right")
        table.add_column("expected", justify="right", style="dim")
    for lines in zip(*(lines for _, lines in shown), strict=True):
        name, k = lines[0][:2]
        table.add_row(name, k, *(value for line in lines for value in line[2:]))
    output_console().print(table)


def _finish(job: CompareJob, found: Comparison, seconds: float) -> None:
    console = error_console()
    for note in found.notes:
        console.print(f"note: {printable(note)}", style="yellow", markup=False, soft_wrap=True)
    if job.is_quiet:
        return
    compared = f"{count(found.generated.num_cells, 'generated cell')} and {found.real.num_cells:,} real ones"
    console.print(f"{compared}, {len(found.genes):,} genes, in {seconds:.1f} s", style="green", soft_wrap=True)
    for path in (job.output, job.json):
        if path is not None:
            console.print(f"wrote {path}", markup=False, soft_wrap=True)
