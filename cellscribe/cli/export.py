"""``cellscribe export``: a checkpoint (or random weights) becomes a bundle."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cellscribe.cli.guard import guarded


class Family(StrEnum):
    """Kinds of checkpoints."""

    lingocell = "lingocell"
    scgpt = "scgpt"
    c2s = "c2s"
    langcell = "langcell"
    geneformer = "geneformer"
    instructcell = "instructcell"


class Precision(StrEnum):
    """Number format of the weights; the last three compute in float32 and run on the CPU."""

    fp32 = "fp32"
    fp16 = "fp16"
    fp16_stored = "fp16-stored"
    int8 = "int8"
    int4 = "int4"


class CrossAttention(StrEnum):
    """How the decoder reads a cell."""

    auto = "auto"
    latent = "latent"
    materialised = "materialised"


@guarded
def export(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="[CHECKPOINT] BUNDLE", help="The checkpoint (not with --random), then the new bundle."),
    ],
    family: Annotated[Family, typer.Option("--family", help="Kind of checkpoint.")] = Family.lingocell,
    precision: Annotated[Precision, typer.Option("--precision", help="Number format.")] = Precision.fp32,
    cross_attention: Annotated[
        CrossAttention, typer.Option("--cross-attention", help="auto chooses by cost.")
    ] = CrossAttention.auto,
    key_map: Annotated[
        Path | None, typer.Option("--key-map", metavar="JSON", help="Key prefixes of a single .pt checkpoint.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The bundle's name; its folder's without it.")] = None,
    parity_cells: Annotated[
        Path | None, typer.Option("--parity-cells", metavar="H5AD", help="Real cells to compare with torch on.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", metavar="FOLDER", help="LangCell's text tokenizer, if elsewhere.")
    ] = None,
    layer: Annotated[
        int, typer.Option("--layer", help="Geneformer's states: 0 of the last layer, -1 of the one before.")
    ] = -1,
    genes: Annotated[
        Path | None,
        typer.Option("--genes", metavar="LIST", help="InstructCell's genes in its order; the published ones without."),
    ] = None,
    random: Annotated[bool, typer.Option("--random", help="Random weights of --shape, for benchmarks.")] = False,
    shape: Annotated[str | None, typer.Option("--shape", help="Sizes for --random, as lingocell-1.1b.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Key of the random weights.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")] = False,
) -> None:
    """Turn a checkpoint into a bundle, and prove on cells that both say the same."""
    from cellscribe.cli.console import error_console
    from cellscribe.engine.errors import UsageError

    _check(paths, random, shape)
    console = error_console()

    def progress(message: str) -> None:
        if not quiet:
            console.print(message, markup=False, soft_wrap=True)

    try:
        from cellscribe.export.bundle import export_checkpoint, export_random
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("cellscribe"):
            raise
        raise UsageError(f"export needs {error.name}; install it with: pip install 'cellscribe[export]'") from error
    if random:
        result = export_random(
            str(shape),
            paths[0],
            precision=precision.value,
            cross_attention=cross_attention.value,
            seed=seed,
            parity_cells=parity_cells,
            progress=progress,
        )
    else:
        result = export_checkpoint(
            paths[0],
            paths[1],
            family=family.value,
            precision=precision.value,
            cross_attention=cross_attention.value,
            key_map=key_map,
            parity_cells=parity_cells,
            name=name,
            tokenizer=tokenizer,
            layer=layer,
            genes=genes,
            progress=progress,
        )
    if not quiet:
        for line in result.lines():
            console.print(line, markup=False, soft_wrap=True)


def _check(paths: list[Path], random: bool, shape: str | None) -> None:
    from cellscribe.engine.errors import UsageError

    if random != (shape is not None):
        raise UsageError("--random and --shape belong together; give both, as in --random --shape lingocell-1.1b.")
    if random and len(paths) != 1:
        raise UsageError("--random takes no checkpoint; give the new bundle's folder alone.")
    if not random and len(paths) != 2:
        raise UsageError("export takes two folders; give the checkpoint and then the new bundle.")
