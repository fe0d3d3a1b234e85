"""``cellscribe c2s``: cells as sentences of genes, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellscribe.cli import options
from cellscribe.cli.guard import guarded


def app() -> typer.Typer:
    """Return the group of commands."""
    group = typer.Typer(
        no_args_is_help=True,
        help="Cells as sentences of genes by falling expression, and back (Cell2Sentence).",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    group.command()(transform)
    group.command()(inverse)
    return group


@guarded
def transform(
    cells: options.CellsArgument,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="A new folder for all that is made.")],
    num_genes: Annotated[
        int | None,
        typer.Option("--genes-per-cell", min=1, help="Only the highest genes of a cell.", show_default=False),
    ] = None,
    formats: Annotated[
        str, typer.Option("--formats", metavar="A,B", help="Which of text, parquet and arrow to write.")
    ] = "text,parquet,arrow",
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--columns", metavar="A,B", help="Columns of obs to keep in parquet and arrow.", show_default=False
        ),
    ] = None,
    min_genes: Annotated[int, typer.Option("--min-genes", min=0, help="Leave out cells that express fewer genes.")] = 0,
    min_cells: Annotated[int, typer.Option("--min-cells", min=0, help="Leave out genes that fewer cells express.")] = 0,
    fit_cells: Annotated[
        int, typer.Option("--fit-cells", min=1, help="Cells that the line is fitted on, drawn by --seed.")
    ] = 1024,
    organism: Annotated[
        str,
        typer.Option("--organism", help="Whose genes: names must be known symbols of human or mouse, not of others."),
    ] = "human",
    seed: Annotated[int, typer.Option("--seed", help="Key of the draws: equal values, cells of the fit.")] = 0,
    layer: options.LayerOption = None,
    input_: options.InputOption = options.Values.auto,
    limit: options.LimitOption = None,
    plot: Annotated[bool, typer.Option("--plot/--no-plot", help="Also draw the fit (needs matplotlib).")] = True,
    quiet: options.QuietOption = False,
) -> int:
    """Turn cells into sentences: text, Parquet, Arrow, the genes, and how well rank tells expression."""
    from cellscribe.cli.sentences import TransformJob, transform_file
    from cellscribe.engine.sentences.transform import TransformOptions

    chosen = TransformOptions(num_genes, seed, min_genes, min_cells, fit_cells)
    kept = tuple(dict.fromkeys(options.listed(",".join(columns or ()))))
    job = TransformJob(
        cells, output, chosen, options.listed(formats), kept, layer, input_.value, limit, plot, quiet, organism
    )
    return transform_file(job)


@guarded
def inverse(
    sentences: Annotated[
        Path,
        typer.Argument(metavar="SENTENCES", help="A .tsv, .txt or .parquet of sentences.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.h5ad", help="The cells.")],
    fit: Annotated[Path, typer.Option("--fit", metavar="fit.json", help="The line, as c2s transform wrote it.")],
    genes: Annotated[Path, typer.Option("--genes", metavar="genes.tsv", help="The genes, one a line.")],
    keep_negatives: Annotated[
        bool, typer.Option("--keep-negatives", help="Keep what the line puts below zero, as the original does.")
    ] = False,
    quiet: options.QuietOption = False,
) -> int:
    """Turn sentences, generated ones too, into expression, log10(1 + normalised counts).

    Sentences without a gene stay as cells of zeros; status of obs says so, and the exit code is 4.
    """
    from cellscribe.cli.sentences import inverse_file

    return inverse_file(sentences, output, fit, genes, keep_negatives=keep_negatives, is_quiet=quiet)
