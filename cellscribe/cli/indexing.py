"""What ``index`` does, step by step: check, open, embed, write, show."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Literal

from cellscribe.cli.console import error_console
from cellscribe.cli.embedding import EmbedJob, embed_some, model_facts
from cellscribe.cli.guard import SOME_FAILED
from cellscribe.cli.progress import progress_bar, rates
from cellscribe.cli.work import rows_of
from cellscribe.engine.cells import open_cells
from cellscribe.engine.output.run import NUM_NAMED_CELLS, count
from cellscribe.engine.output.text import printable
from cellscribe.engine.search.build import Built, build_index, check_index


@dataclass(frozen=True)
class IndexJob:
    """One call of ``index``: how to embed, and into what."""

    embed: EmbedJob
    columns: tuple[str, ...] = ()
    nearest: Literal["auto", "exact", "approximate"] = "auto"


def index_file(job: IndexJob) -> int:
    """Index the cells of a file and return the exit code."""
    given = job.embed
    check_index(given.output)
    with open_cells(given.cells, layer=given.layer, values=given.values) as source:
        model = given.load()
        rows = rows_of(source, (), given.limit)
        model_facts(model, source, len(rows), given.is_quiet)
        started = time.perf_counter()
        with progress_bar("indexing", given.is_quiet) as bar:
            built = build_index(
                partial(embed_some, given, model),
                model.bundle,
                source,
                given.output,
                rows=rows,
                columns=job.columns,
                kind=job.nearest,
                progress=bar,
            )
        seconds = time.perf_counter() - started
    return _finish(built, seconds, given)


def _finish(built: Built, seconds: float, given: EmbedJob) -> int:
    console = error_console()
    found, lost = built.index, built.why_lost
    if not given.is_quiet:
        done = len(found.vectors)
        console.print(f"{count(done, 'cell')} in {seconds:.1f} s · {rates(done, 0, seconds)}", style="green")
        told = found.manifest["approximate"]
        if told is not None:
            console.print(
                f"faiss probes {told['probes']} of {told['lists']} lists and finds {100 * told['recall_at_10']:.1f} % "
                "of the ten nearest"
            )
        console.print(f"wrote {given.output}", markup=False, soft_wrap=True)
    if lost:
        some = "; ".join(f"{name}: {why}" for name, why in list(lost.items())[:NUM_NAMED_CELLS])
        warning = f"{count(len(lost), 'cell')} could not be embedded and cannot be found: {some}."
        console.print(printable(warning), style="yellow", markup=False, soft_wrap=True)
    return SOME_FAILED if lost else 0
