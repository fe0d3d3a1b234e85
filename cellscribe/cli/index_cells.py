"""``cellscribe index``: cells in, a folder that can be searched out."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cellscribe.cli import options
from cellscribe.cli.guard import guarded


class NearestChoice(StrEnum):
    """How the index is searched."""

    auto = "auto"
    exact = "exact"
    approximate = "approximate"


@guarded
def index(
    cells: options.CellsArgument,
    bundle: Annotated[str, typer.Option("--bundle", metavar="DIR", help="Bundle folder; langcell finds by text.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="A new folder for the index.")],
    columns: Annotated[
        str,
        typer.Option("--columns", metavar="A,B", help="Columns of obs to keep beside the cells.", show_default=False),
    ] = "",
    nearest: Annotated[
        NearestChoice,
        typer.Option("--nearest", help="Compare all cells, or let faiss find most; auto does past a million cells."),
    ] = NearestChoice.auto,
    layer: options.LayerOption = None,
    input_: options.InputOption = options.Values.auto,
    limit: options.LimitOption = None,
    backend: options.BackendOption = options.BackendChoice.auto,
    plans: options.PlansOption = None,
    threads: options.ThreadsOption = None,
    quiet: options.QuietOption = False,
) -> int:
    """Embed cells into a folder that can be searched; the same call goes on after a stop."""
    from cellscribe.cli.embedding import EmbedJob
    from cellscribe.cli.indexing import IndexJob, index_file

    job = EmbedJob(
        cells=cells,
        output=output,
        bundle=bundle,
        layer=layer,
        values=input_.value,
        limit=limit,
        backend=backend.value,
        plans=plans,
        threads=threads,
        is_quiet=quiet,
    )
    return index_file(IndexJob(job, options.listed(columns), nearest.value))
