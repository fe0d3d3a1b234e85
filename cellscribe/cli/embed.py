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
    organism: options.OrganismOption = "human",
    num_genes: options.SentenceOption = None,
    templates: options.TemplatesOption = None,
    template: options.TemplateOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Key of the draws that break ties.")] = 0,
    upstream_padding: Annotated[
        int | None,
        typer.Option(
            "--upstream-padding",
            metavar="N",
            help="c2s: average over padding too, in batches of N cells, as the original does; vectors then depend on "
            "the cells beside them.",
            show_default=False,
        ),
    ] = None,
    score_by: Annotated[
        str | None,
        typer.Option(
            "--score-by",
            metavar="COLUMN",
            help="Known cell types: also score how well the vectors keep them apart (AvgBIO, by scib-metrics).",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            "--batch", metavar="COLUMN", help="Batches: also score how well they mix (AvgBATCH).", show_default=False
        ),
    ] = None,
    quiet: options.QuietOption = False,
) -> int:
    """Turn cells into vectors (obsm X_cellscribe in an .h5ad output).

    A bundle with an encoder gives its cell embedding, of length 1; one that reads sentences (c2s) the mean of its last
    states over the prompt of cell type prediction.
    """
    from cellscribe.cli.embedding import EmbedJob, embed_file

    number = options.template_number(template)
    job = EmbedJob(
        cells=cells,
        output=output,
        bundle=bundle,
        layer=layer,
        values=input_.value,
        key_added=key_added,
        limit=limit,
        backend=backend.value,
        plans=plans,
        threads=threads,
        genes=genes,
        hvg_flavor=hvg_flavor.value if hvg_flavor else None,
        organism=organism,
        genes_per_cell=num_genes,
        templates=templates,
        template=None if template is None else "draw" if number is None else number,
        seed=seed,
        upstream_padding=upstream_padding,
        score_by=score_by,
        batch=batch,
        is_quiet=quiet,
    )
    return embed_file(job)
