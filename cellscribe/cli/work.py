"""What ``describe`` and ``demo`` do, step by step: check, open, run, write, show."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from cellscribe.cli.console import error_console, notes, output_console
from cellscribe.cli.guard import SOME_FAILED
from cellscribe.cli.live import StreamView
from cellscribe.cli.progress import progress_bar, rates
from cellscribe.cli.terminal import cell_panel
from cellscribe.engine.backends.choose import remarks_of
from cellscribe.engine.cells import CellSource, open_cells
from cellscribe.engine.cells.hvg import read_gene_list
from cellscribe.engine.cells.spec import HvgFlavor
from cellscribe.engine.device_facts import passed_facts
from cellscribe.engine.model import Model, load
from cellscribe.engine.output.attention import write_attention
from cellscribe.engine.output.fields import KEY, check_key
from cellscribe.engine.output.files import check_output, check_outputs, check_run_output, write_run
from cellscribe.engine.output.report import write_report
from cellscribe.engine.output.run import Run, count
from cellscribe.engine.output.text import printable
from cellscribe.engine.types import Sampling, check_max_new_tokens

if TYPE_CHECKING:
    from cellscribe.engine.describe import OnPiece, Progress


@dataclass(frozen=True)
class Job:
    """One call of ``describe``: which cells, how, and where to."""

    cells: Path
    bundle: str = "demo"
    output: Path | None = None
    report: Path | None = None
    save_attn: Path | None = None
    key_added: str = KEY
    cell_ids: tuple[str, ...] = ()
    limit: int | None = None
    pool: str | None = None
    layer: str | None = None
    values: Literal["auto", "counts", "lognorm"] = "auto"
    sampling: Sampling = field(default_factory=Sampling)
    max_new_tokens: int = 96
    batch_size: int = 32
    num_top_genes: int = 10
    backend: str = "auto"
    plans: Path | None = None
    threads: int | None = None
    genes: Path | None = None
    hvg_flavor: HvgFlavor | None = None
    is_streamed: bool = False
    is_quiet: bool = False

    def check(self) -> None:
        """Raise UsageError or OutputError for what cannot work, before anything is loaded."""
        check_max_new_tokens(self.max_new_tokens)
        check_key(self.key_added)
        check_destinations(self.cells, self.output, self.report, self.save_attn)


def check_destinations(cells: Path, output: Path | None, report: Path | None, save_attn: Path | None) -> None:
    """Raise UsageError or OutputError unless every output that is named can be written."""
    if output is not None:
        check_run_output(output, cells)
    for path, suffix in ((report, ".html"), (save_attn, ".npz")):
        if path is not None:
            check_output(path, cells, (suffix,))
    check_outputs(path for path in (output, report, save_attn) if path is not None)


def describe_file(job: Job) -> int:
    """Describe the cells of a file, write and show the results, and return the exit code."""
    job.check()
    with open_cells(job.cells, layer=job.layer, values=job.values) as source:
        rows = rows_of(source, job.cell_ids, job.limit)
        model = load_for(job.bundle, job.threads, job.genes, job.hvg_flavor, job.sampling.seed, job.backend, job.plans)
        notes(facts(model, source, len(rows), job.sampling.label()), job.is_quiet)
        started = time.perf_counter()
        run = _run(job, model, source, rows)
        seconds = time.perf_counter() - started
    _write(job, run)
    _show(job, run)
    for remark in () if job.is_quiet else remarks_of(model.backend_choice.backend):
        error_console().print(f"note: {printable(remark)}", style="yellow", markup=False, soft_wrap=True)
    return finish(run, seconds, [job.output, job.report, job.save_attn], job.is_quiet)


def load_for(
    bundle: str,
    threads: int | None,
    genes: Path | None,
    flavor: HvgFlavor | None,
    seed: int = 0,
    backend: str = "auto",
    plans: Path | None = None,
) -> Model:
    """Load a bundle, with the gene list of a file where one is given."""
    hvg = None if genes is None else read_gene_list(genes)
    model = load(bundle, threads=threads, seed=seed, hvg=hvg, hvg_flavor=flavor, backend=backend, plans=plans)
    if isinstance(model, Model):
        return model
    return model.describe()  # says what to use


def rows_of(source: CellSource, cell_ids: tuple[str, ...], limit: int | None) -> npt.NDArray[np.int64]:
    """Return the rows that ids and limit leave, int64 [N]; all of them without either."""
    rows = source.rows_of(tuple(dict.fromkeys(cell_ids))) if cell_ids else np.arange(source.n_cells, dtype=np.int64)
    return np.asarray(rows, np.int64)[:limit]


def facts(model: Model, source: CellSource, num_rows: int, sampling: str = "") -> Iterator[tuple[str, str]]:
    """Say what is about to run: device and what was passed over for it, bundle, cells, values, genes."""
    manifest = model.bundle.manifest
    name = source.path.name if source.path is not None else "cells in memory"
    yield "device", model.device
    yield from passed_facts(model.backend_choice)
    yield "bundle", f"{model.bundle.name} ({manifest.family}, {manifest.precision}, {model.bundle.hash[:12]})"
    chosen = f"; {num_rows:,} of them chosen" if num_rows < source.n_cells else ""
    yield "cells", f"{name}, {count(source.n_cells, 'cell')} × {count(source.n_genes, 'gene')}{chosen}"
    yield "values", source.value_note
    yield "genes", str(model.gene_report(source)["sentence"])
    if sampling:
        yield "sampling", sampling


def finish(run: Run, seconds: float, written: list[Path | None], quiet: bool) -> int:
    """Say how fast it was, where the results are and what failed; return the exit code."""
    console = error_console()
    if not quiet:
        done = len(run.names)
        console.print(
            f"{count(done, run.noun)} in {seconds:.1f} s · {rates(done, run.num_tokens, seconds)}", style="green"
        )
        for path in written:
            if path is not None:
                console.print(f"wrote {path}", markup=False, soft_wrap=True)
    if run.notice:
        console.print(f"note: {printable(run.notice)}", style="yellow", markup=False, soft_wrap=True)
    if run.failed:
        console.print(printable(run.failure_sentence()), style="yellow", markup=False, soft_wrap=True)
    return SOME_FAILED if run.failed else 0


@contextmanager
def kept_if_it_fails(run: Run, output: Path, cells: Path, key_added: str) -> Iterator[None]:
    """Write what was computed even where something that comes after it fails, and say so."""
    try:
        yield
    except BaseException:
        write_run(run, output, cells, key_added)
        error_console().print(f"wrote {output}, without what failed", markup=False, soft_wrap=True)
        raise


def _run(job: Job, model: Model, source: CellSource, rows: npt.NDArray[np.int64]) -> Run:
    with _watching(job) as (progress, on_piece):
        return model.describe_cells(
            source,
            rows=rows,
            pool=job.pool,
            sampling=job.sampling,
            max_new_tokens=job.max_new_tokens,
            batch_size=job.batch_size,
            top_genes=job.num_top_genes,
            attention=job.save_attn is not None,
            progress=progress,
            on_piece=on_piece,
        )


@contextmanager
def _watching(job: Job) -> Iterator[tuple[Progress | None, OnPiece | None]]:
    if job.is_streamed:
        with StreamView(output_console()) as view:
            yield None, view.on_piece
    else:
        with progress_bar("describing", job.is_quiet) as progress:
            yield progress, None


def _write(job: Job, run: Run) -> None:
    if job.output is not None:
        write_run(run, job.output, job.cells, job.key_added)
    if job.report is not None:
        write_report(run, job.report)
    if job.save_attn is not None:
        write_attention(run, job.save_attn)


def _show(job: Job, run: Run) -> None:
    if job.output is not None or job.is_streamed:
        return
    console = output_console()
    for one in run.descriptions:
        console.print(cell_panel(one, console.width))
