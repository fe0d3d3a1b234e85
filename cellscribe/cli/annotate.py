"""``cellscribe annotate``: cells in, labels out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellscribe.cli import options
from cellscribe.cli.guard import guarded


@guarded
def annotate(
    cells: options.CellsArgument,
    bundle: Annotated[
        str,
        typer.Option(
            "--bundle", metavar="DIR", help="Bundle folder that annotates, as of c2s; 'demo-c2s' is packaged."
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT", help="Result: .h5ad, .parquet, .jsonl or .csv.")
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="LIST",
            help="Only these: .txt or .tsv (a label a line, a tab and a CL id after it), or .json.",
            show_default=False,
        ),
    ] = None,
    scores: Annotated[
        bool,
        typer.Option("--scores", help="Score every label of --labels, and give the runner-up and the margin to it."),
    ] = False,
    organism: options.OrganismOption = "human",
    num_genes: options.SentenceOption = None,
    templates: options.TemplatesOption = None,
    template: options.TemplateOption = "0",
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest free answer.")] = 32,
    batch_size: options.BatchOption = 32,
    seed: Annotated[int, typer.Option("--seed", help="Key of the draws that order equal values.")] = 0,
    layer: options.LayerOption = None,
    input_: options.InputOption = options.Values.auto,
    limit: options.LimitOption = None,
    key_added: options.KeyOption = "cellscribe",
    backend: options.BackendOption = options.BackendChoice.auto,
    threads: options.ThreadsOption = None,
    quiet: options.QuietOption = False,
) -> int:
    """Label cells, freely or from a list (obs cellscribe_label and cellscribe_score in an .h5ad output)."""
    from cellscribe.cli.annotating import AnnotateJob, annotate_file
    from cellscribe.engine.text_types import TextSettings

    settings = TextSettings(organism, num_genes, options.template_number(template), seed)
    job = AnnotateJob(
        cells, bundle, output, labels, settings, templates, max_new_tokens, batch_size, layer, input_.value, limit,
        key_added, backend.value, threads, quiet, scores,
    )  # fmt: skip
    return annotate_file(job)
