"""``cellscribe ask``: questions about cells and groups of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellscribe.cli import options
from cellscribe.cli.guard import guarded


@guarded
def ask(
    cells: Annotated[
        Path,
        typer.Argument(
            metavar="CELLS", help="The cells; - for a task about none (c2s: gene_set_name).", show_default=False
        ),
    ],
    question: Annotated[
        str | None,
        typer.Argument(
            metavar="[QUESTION]",
            help="In your own words; {cell_sentence} stands for a cell's genes, or {cell} for the cell (instructcell).",
            show_default=False,
        ),
    ] = None,
    bundle: Annotated[
        str | None,
        typer.Option(
            "--bundle",
            metavar="DIR",
            help="Bundle folder that answers; 'demo-c2s', the packaged one, without it.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", help="A task of the templates instead of a question.", show_default=False),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="COLUMN", help="Ask about groups of obs, not single cells.", show_default=False),
    ] = None,
    group_cells: Annotated[int, typer.Option("--cells", help="Cells of a group in one prompt, 5 to 20.")] = 10,
    values: options.SetOption = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="LIST",
            help="Answers are one of these: .txt or .tsv (a label a line), .json or .obo.",
            show_default=False,
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", help="Of the words: 0 takes the most probable ones.")
    ] = 0.0,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", help="Nucleus size, with a temperature; 0.9 without it.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="OUT", help="Result: .csv, .jsonl or .parquet.")
    ] = None,
    organism: options.OrganismOption = "human",
    num_genes: options.SentenceOption = None,
    templates: options.TemplatesOption = None,
    template: options.TemplateOption = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer.")] = 64,
    batch_size: options.BatchOption = 8,
    seed: Annotated[
        int, typer.Option("--seed", help="Key of the draws: words, prompts, cells of groups, equal values.")
    ] = 0,
    layer: options.LayerOption = None,
    input_: options.InputOption = options.Values.auto,
    limit: options.LimitOption = None,
    backend: options.BackendOption = options.BackendChoice.auto,
    plans: options.PlansOption = None,
    threads: options.ThreadsOption = None,
    quiet: options.QuietOption = False,
) -> int:
    """Ask about every cell, or about groups of cells; answers go to the terminal, or to a file.

    A task about no cells is answered once.
    """
    from cellscribe.cli.asking import AskJob, ask_file
    from cellscribe.engine.text_types import TextSettings

    settings = TextSettings(organism, num_genes, options.template_number(template), seed)
    chosen = options.bundle_or_packaged(bundle, quiet)
    job = AskJob(
        cells, chosen, question, task, by, group_cells, tuple(values or ()), output, settings, templates,
        max_new_tokens, batch_size, layer, input_.value, limit, backend.value, threads, quiet, plans, template, labels,
        temperature, top_p,
    )  # fmt: skip
    return ask_file(job)
