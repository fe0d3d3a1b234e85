"""``cellscribe generate``: cells that the model writes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellscribe.cli import options
from cellscribe.cli.guard import guarded


@guarded
def generate(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.h5ad", help="The cells.")],
    bundle: Annotated[
        str | None,
        typer.Option(
            "--bundle",
            metavar="DIR",
            help="Bundle folder of c2s or instructcell; 'demo-c2s', the packaged one, without it.",
            show_default=False,
        ),
    ] = None,
    cell_type: Annotated[
        str | None,
        typer.Option(
            "--cell-type",
            help="What kind of cell; c2s: any without it; instructcell: needed, but with --instruction.",
            show_default=False,
        ),
    ] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many cells, or samples of them.")] = 10,
    cells_per_sample: Annotated[
        int | None,
        typer.Option("--cells-per-sample", help="c2s: so many cells in every answer, 5 to 20.", show_default=False),
    ] = None,
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
        typer.Option(
            "--like",
            metavar="CELLS",
            help="Take genes and line from these cells; demo-c2s: from packaged ones.",
            show_default=False,
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option("--layer", help="Layer of --like to read instead of X ('raw' for .raw).", show_default=False),
    ] = None,
    input_: Annotated[
        options.Values, typer.Option("--input", help="What the values of --like are; auto looks at the whole file.")
    ] = options.Values.auto,
    tissue: Annotated[
        str | None,
        typer.Option("--tissue", help="Where it comes from; c2s: with --cells-per-sample.", show_default=False),
    ] = None,
    abstract: Annotated[
        str | None,
        typer.Option("--abstract", help="c2s, with --cells-per-sample: the study's abstract.", show_default=False),
    ] = None,
    values: options.SetOption = None,
    instruction: Annotated[
        str | None, typer.Option("--instruction", help="instructcell: ask in your own words.", show_default=False)
    ] = None,
    means: Annotated[
        bool, typer.Option("--means", help="instructcell: the means of the counts' distribution, not drawn counts.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="OUT.html",
            help="Also compare with the cells of --truth, on one page.",
            show_default=False,
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option("--truth", metavar="CELLS", help="Real cells, for the report.", show_default=False),
    ] = None,
    truth_label: Annotated[
        str, typer.Option("--truth-label", metavar="COLUMN", help="Their types, a column of obs.")
    ] = "cell_type",
    organism: options.OrganismOption = "human",
    num_genes: options.SentenceOption = None,
    templates: options.TemplatesOption = None,
    template: options.TemplateOption = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            help="Of the words: 0 takes the most probable; 0.7 for sentences, 0 for instructions without it.",
            show_default=False,
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", help="Nucleus size, where words are drawn; 0.9 without it.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Key of the draws: words, prompts, counts.")] = 0,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, help="Longest sentence in tokens.", show_default=False)
    ] = None,
    batch_size: options.BatchOption = 8,
    backend: options.BackendOption = options.BackendChoice.auto,
    plans: options.PlansOption = None,
    threads: options.ThreadsOption = None,
    quiet: options.QuietOption = False,
) -> int:
    """Write cells.

    A bundle of c2s writes them as sentences, which become expression, log10(1 + normalised counts), each alone or as
    samples of several (--cells-per-sample); one of instructcell writes counts.
    """
    from cellscribe.cli.generating import GenerateJob, Ordering, generate_file
    from cellscribe.engine.text_types import TextSettings

    settings = TextSettings(organism, num_genes, options.template_number(template), seed)
    ordering = Ordering(tissue, tuple(values or ()), instruction, means, report, truth, truth_label)
    chosen = options.bundle_or_packaged(bundle, quiet)
    job = GenerateJob(
        chosen, output, cell_type, count, fit, genes, like, settings, temperature, top_p, templates, max_new_tokens,
        batch_size, backend.value, threads, quiet, plans, ordering, template, layer, input_.value, cells_per_sample,
        abstract,
    )  # fmt: skip
    return generate_file(job)
