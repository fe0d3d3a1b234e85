"""``cellscribe generate``: cells that the model writes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellscribe.cli import options
from cellscribe.cli.guard import guarded


@guarded
def generate(
    bundle: Annotated[
        str,
        typer.Option(
            "--bundle", metavar="DIR", help="Bundle folder that writes cells, as of c2s; 'demo-c2s' is packaged."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.h5ad", help="The cells.")],
    cell_type: Annotated[
        str | None, typer.Option("--cell-type", help="What kind of cell; any without it.", show_default=False)
    ] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many cells.")] = 10,
    fit: Annotated[
        Path | None,
        typer.Option("--fit", metavar="fit.json", help="The line of c2s transform.", show_default=False),
    ] = None,
    genes: Annotated[
        Path | None,
        typer.Option("--genes", metavar="genes.tsv", help="Genes of c2s transform, one a line.", show_default=False),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option("--like", metavar="CELLS.h5ad", help="Take genes and line from these cells.", show_default=False),
    ] = None,
    organism: options.OrganismOption = "human",
    num_genes: options.SentenceOption = None,
    templates: options.TemplatesOption = None,
    template: options.TemplateOption = "0",
    temperature: Annotated[float, typer.Option("--temperature", help="0 writes the same cell every time.")] = 0.7,
    top_p: Annotated[float, typer.Option("--top-p", help="Nucleus size.")] = 0.9,
    seed: Annotated[int, typer.Option("--seed", help="Key of the draws.")] = 0,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, help="Longest sentence in tokens.", show_default=False)
    ] = None,
    batch_size: options.BatchOption = 8,
    backend: options.BackendOption = options.BackendChoice.auto,
    plans: options.PlansOption = None,
    threads: options.ThreadsOption = None,
    quiet: options.QuietOption = False,
) -> int:
    """Write cells as sentences, and turn them into expression, log10(1 + normalised counts)."""
    from cellscribe.cli.generating import GenerateJob, generate_file
    from cellscribe.engine.text_types import TextSettings
    from cellscribe.engine.types import Sampling

    sampling = Sampling(top_p if temperature else 1.0, temperature, seed)
    settings = TextSettings(organism, num_genes, options.template_number(template), seed)
    job = GenerateJob(
        bundle, output, cell_type, count, fit, genes, like, settings, sampling, templates, max_new_tokens, batch_size,
        backend.value, threads, quiet, plans,
    )  # fmt: skip
    return generate_file(job)
