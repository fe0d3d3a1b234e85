"""``cellscribe demo``: the packaged cells through the packaged bundle."""

from __future__ import annotations

from typing import Annotated

import typer

from cellscribe.cli import options
from cellscribe.cli.guard import guarded

_NEXT_STEPS = (
    ("your cells", "cellscribe describe CELLS.h5ad -o OUT.h5ad"),
    ("will they fit?", "cellscribe doctor CELLS.h5ad"),
    ("your model", "cellscribe export CHECKPOINT BUNDLE --family lingocell"),
)


@guarded
def demo(
    report: options.ReportOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many cells.")] = 6,
    stream: Annotated[bool, typer.Option("--stream", help="Print the texts as they are written.")] = False,
    backend: options.BackendOption = options.BackendChoice.auto,
    threads: options.ThreadsOption = None,
    quiet: options.QuietOption = False,
) -> int:
    """Describe a few real blood cells that come with the package, with its small demonstration model."""
    from cellscribe.cli.console import error_console, notes
    from cellscribe.cli.terminal import heading
    from cellscribe.cli.work import Job, describe_file
    from cellscribe.engine.model import packaged_cells

    if not quiet:
        error_console().print(heading("describing real blood cells with a small demonstration model"))
    batch_size = 1 if stream else 32
    code = describe_file(
        Job(
            packaged_cells(),
            report=report,
            limit=limit,
            batch_size=batch_size,
            backend=backend.value,
            threads=threads,
            is_streamed=stream,
            is_quiet=quiet,
        )
    )
    notes(_NEXT_STEPS, quiet)
    return code
