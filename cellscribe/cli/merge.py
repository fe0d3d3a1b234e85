"""``cellscribe merge``: results of an atlas joined to the cells they are about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellscribe.cli import options
from cellscribe.cli.guard import guarded


@guarded
def merge(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder or URL of an atlas run.", show_default=False)],
    into: Annotated[Path, typer.Option("--into", metavar="ATLAS.h5ad", help="The cells; their matrices are not read.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT.h5ad", help="Where to; into the file itself without it."),
    ] = None,
    key_added: options.KeyOption = "cellscribe",
    partial: Annotated[bool, typer.Option("--partial", help="Also take a run that is not finished.")] = False,
    quiet: options.QuietOption = False,
) -> int:
    """Join the results of `cellscribe atlas` to an .h5ad file by the names of its cells, without loading X."""
    from cellscribe.cli.console import error_console
    from cellscribe.engine.atlas.merge import merge_into
    from cellscribe.engine.output.text import printable

    _check_outside(folder, output or into)
    joined = merge_into(folder, into, output or into, key_added=key_added, is_partial=partial)
    if not quiet:
        error_console().print(printable(joined.sentence()), style="green", markup=False, soft_wrap=True)
    return 0


def _check_outside(folder: str, out: Path) -> None:
    """Raise UsageError for a file within the folder of the run, which holds files of the run alone."""
    from cellscribe.engine.atlas.urls import is_url, local_path
    from cellscribe.engine.errors import UsageError

    run = local_path(folder) if is_url(folder) else Path(folder)
    if run is not None and out.resolve().is_relative_to(run.resolve()):
        raise UsageError(f"{out} lies in {folder}, which holds the run alone; choose another place with -o.")
