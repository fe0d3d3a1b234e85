"""``cellscribe doctor``: whether it will run here, and whether the cells will do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellscribe.cli import options
from cellscribe.cli.guard import guarded


@guarded
def doctor(
    cells: Annotated[
        Path | None, typer.Argument(metavar="[CELLS]", help="Cells to look at.", show_default=False)
    ] = None,
    bundle: options.BundleOption = "demo",
    layer: options.LayerOption = None,
    input_: options.InputOption = options.Values.auto,
    backend: options.BackendOption = options.BackendChoice.auto,
    plans: options.PlansOption = None,
    threads: options.ThreadsOption = None,
) -> None:
    """Look at the machine and at a cell file before any work: device, memory, values, genes, expected time."""
    from cellscribe.cli.console import output_console
    from cellscribe.cli.terminal import facts_table
    from cellscribe.engine.doctor import examine

    console = output_console()
    examination = examine(
        cells, bundle, layer=layer, values=input_.value, threads=threads, backend=backend.value, plans=plans
    )
    console.print(facts_table(examination.facts))
    for problem in examination.problems:
        console.print(f"note: {problem}", style="yellow", markup=False, soft_wrap=True)
