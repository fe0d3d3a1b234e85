"""``cellscribe quantize``: an fp32 bundle with its weights in 4, 8 or 16 bits."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cellscribe.cli import options
from cellscribe.cli.guard import guarded


class Stored(StrEnum):
    """Number format of the weights; arithmetic stays in float32."""

    int8 = "int8"
    int4 = "int4"
    fp16_stored = "fp16-stored"


@guarded
def quantize(
    bundle: options.BundleArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The new bundle.", show_default=False)],
    precision: Annotated[
        Stored, typer.Option("--precision", help="int4 keeps the head and the encoder in 8 bits.")
    ] = Stored.int8,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            metavar="NAMES",
            help="Weights to store one step finer (8 bits for 4, half for 8), as 'decoder.layers.0.*'; repeatable.",
            show_default=False,
        ),
    ] = None,
    cells: Annotated[
        Path | None,
        typer.Option("--parity-cells", metavar="H5AD", help="Real cells to measure the loss on.", show_default=False),
    ] = None,
    quiet: options.QuietOption = False,
) -> None:
    """Store the weights of an fp32 bundle in fewer bits, and measure on cells what that costs.

    The new bundle runs on the CPU of any machine: several times smaller, and faster where weights are what a step waits
    for.
    """
    from cellscribe.cli.console import error_console
    from cellscribe.cli.progress import file_bars
    from cellscribe.engine.errors import UsageError

    try:
        from cellscribe.export.quantize.bundle import quantize_bundle
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("cellscribe"):
            raise
        raise UsageError(f"quantize needs {error.name}; install it with: pip install 'cellscribe[export]'") from error
    folder = options.bundle_folder(bundle)
    with file_bars(quiet) as report:
        result = quantize_bundle(folder, out, precision.value, keep=keep or (), cells=cells, progress=report)
    if not quiet:
        for line in result.lines():
            error_console().print(line, markup=False, soft_wrap=True)
