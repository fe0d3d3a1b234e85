"""What ``cellscribe c2s`` does, step by step: check, open, run, write, show."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cellscribe.cli.console import error_console, notes, output_console
from cellscribe.cli.guard import SOME_FAILED
from cellscribe.cli.progress import progress_bar
from cellscribe.engine.cells import CellSource, open_cells
from cellscribe.engine.output.files import check_output
from cellscribe.engine.output.folder import check_target, staging
from cellscribe.engine.output.run import count
from cellscribe.engine.output.text import printable
from cellscribe.engine.sentences.files import FIT, TEXT, check_formats, num_spaced, write_sentences
from cellscribe.engine.sentences.fit import RankFit
from cellscribe.engine.sentences.inverse import Inverse
from cellscribe.engine.sentences.known import KnownNames, checked_names
from cellscribe.engine.sentences.read import empty_note, inverted, read_genes
from cellscribe.engine.sentences.transform import Transform, TransformOptions

_PLOT = "fit.png"
_NO_PLOT = (
    f"note: {_PLOT} is not drawn, as matplotlib is not installed; install it with: pip install 'cellscribe[bench]', or "
    "give --no-plot."
)
_SPACED = (
    f"note: the names of {{}} have tabs, line breaks or spaces beside each other, which {TEXT} writes as one "
    "space; parquet and arrow keep them."
)


@dataclass(frozen=True)
class TransformJob:
    """One call of ``c2s transform``."""

    cells: Path
    output: Path
    options: TransformOptions
    formats: tuple[str, ...]
    columns: tuple[str, ...] = ()
    layer: str | None = None
    values: Literal["auto", "counts", "lognorm"] = "auto"
    limit: int | None = None
    is_drawn: bool = True
    is_quiet: bool = False
    organism: str = "human"


def transform_file(job: TransformJob) -> int:
    """Turn the cells of a file into sentences and return the exit code."""
    check_formats(job.formats)
    check_target(job.output)
    with open_cells(job.cells, layer=job.layer, values=job.values) as source:
        for name in job.columns:
            source.obs_column(name)
        rows = np.arange(source.n_cells)[: job.limit]
        notes(_facts(source, len(rows), checked_names(source, job.organism)), job.is_quiet)
        started = time.perf_counter()
        with progress_bar("cells to sentences", job.is_quiet) as bar, staging(job.output) as folder:
            report = None if bar is None else lambda done, total: bar(done, total, 0)
            transform = Transform(source, job.options, rows=rows, progress=report)
            num_written = write_sentences(transform, folder, job.formats, job.columns)
            fit = transform.fit()
            (folder / FIT).write_text(json.dumps(fit.as_dict(), indent=1) + "\n", encoding="utf-8")
            is_drawn = job.is_drawn and importlib.util.find_spec("matplotlib") is not None
            if is_drawn:
                _draw(transform, fit, folder / _PLOT, job.cells.name)
        seconds = time.perf_counter() - started
    _say(job, transform, fit, num_written, seconds)
    spaced = num_spaced(transform) if "text" in job.formats else 0
    for note in (
        _NO_PLOT if job.is_drawn and not is_drawn else "",
        _SPACED.format(count(spaced, "cell")) if spaced else "",
    ):
        if note:
            error_console().print(note, style="yellow", markup=False, soft_wrap=True)
    return 0


def inverse_file(sentences: Path, output: Path, fit: Path, genes: Path, *, keep_negatives: bool, is_quiet: bool) -> int:
    """Turn a file of sentences into an .h5ad and return the exit code, which says where cells are all zeros."""
    check_output(output, sentences, (".h5ad",))
    line, words = Inverse.read(fit), read_genes(genes)
    started = time.perf_counter()
    cells, report = inverted(sentences, words, line, no_negatives=not keep_negatives)
    from cellscribe.engine.output.h5ad import write_new

    write_new(cells, output)
    if not is_quiet:
        seconds = time.perf_counter() - started
        told = f"{report}; {count(cells.n_obs, 'cell')} in {seconds:.1f} s"
        error_console().print(told, style="dim", soft_wrap=True)
        output_console().print(f"wrote {output}", markup=False, soft_wrap=True)
    note = empty_note(cells)
    if note:
        error_console().print(printable(note), style="yellow", markup=False, soft_wrap=True)
    return SOME_FAILED if note else 0


def _facts(source: CellSource, num_cells: int, known: KnownNames | None) -> Iterator[tuple[str, str]]:
    yield "cells", f"{num_cells:,} of {source.name}, {count(source.n_genes, 'gene')}"
    yield "values", " ".join(source.notes)
    if known is not None:
        yield "genes", known.sentence("sentences")


def _draw(transform: Transform, fit: RankFit, path: Path, title: str) -> None:
    from cellscribe.engine.sentences.plot import write_fit_plot

    write_fit_plot(*transform.points(), fit, path, title)


def _say(job: TransformJob, transform: Transform, fit: RankFit, num_written: int, seconds: float) -> None:
    if job.is_quiet:
        return
    left = transform.census.num_left_out
    error_console().print(
        f"{count(num_written, 'sentence')} in {seconds:.1f} s ({num_written / seconds:,.0f} a second)"
        + (f"; {count(left, 'cell')} with fewer genes left out" if left else ""),
        style="dim",
        soft_wrap=True,
    )
    out = output_console()
    out.print(f"expression = {fit.slope:.4f} * log10(1 + rank) + {fit.intercept:.4f}", soft_wrap=True)
    out.print(
        f"R2 {fit.r_squared:.4f}  Pearson {fit.pearson_r:.4f}  Spearman {fit.spearman_r:.4f}  "
        f"({count(fit.num_cells, 'cell')}, {count(fit.num_points, 'gene')} of cells)",
        soft_wrap=True,
    )
    out.print(f"wrote {job.output}", markup=False, soft_wrap=True)
