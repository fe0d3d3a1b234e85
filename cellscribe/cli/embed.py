"""``cellscribe embed``: cells in, vectors out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellscribe.cli import options
from cellscribe.cli.guard import guarded


@guarded
def embed(
    cells: options.CellsArgument,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT", help="Result: .h5ad, .parquet, .jsonl or .csv.")
    ],
    bundle: options.BundleOption = "demo",
    layer: options.LayerOption = None,
    input_: options.InputOption = options.Values.auto,
    key_added: options.KeyOption = "cellscribe",
    limit: options.LimitOption = None,
    backend: options.BackendOption = options.BackendChoice.auto,
    plans: options.PlansOption = None,
    threads: options.ThreadsOption = None,
    genes: options.GenesOption = None,
    hvg_flavor: options.FlavorOption = None,
    quiet: options.QuietOption = False,
) -> int:
    """Turn cells into vectors (obsm X_cellscribe in an .h5ad output)."""
    import time

    from cellscribe.cli.console import notes
    from cellscribe.cli.progress import progress_bar
    from cellscribe.cli.work import check_destinations, facts, finish, load_for, rows_of
    from cellscribe.engine.cells import open_cells
    from cellscribe.engine.output.fields import check_key
    from cellscribe.engine.output.files import write_run

    check_key(key_added)
    check_destinations(cells, output, None, None)
    with open_cells(cells, layer=layer, values=input_.value) as source:
        model = load_for(
            bundle, threads, genes, hvg_flavor.value if hvg_flavor else None, backend=backend.value, plans=plans
        )
        rows = rows_of(source, (), limit)
        notes(facts(model, source, len(rows)), quiet)
        started = time.perf_counter()
        with progress_bar("embedding", quiet) as progress:
            run = model.embed_cells(source, rows=rows, progress=progress)
        seconds = time.perf_counter() - started
    write_run(run, output, cells, key_added)
    return finish(run, seconds, [output], quiet)
