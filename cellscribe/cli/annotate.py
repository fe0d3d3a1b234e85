"""``cellscribe annotate``: cells in, labels out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cellscribe.cli import options
from cellscribe.cli.guard import guarded


@guarded
def annotate(
    cells: options.CellsArgument,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT", help="Result: .h5ad, .parquet, .jsonl or .csv.")
    ],
    bundle: Annotated[
        str | None,
        typer.Option(
            "--bundle",
            metavar="DIR",
            help="Bundle folder of c2s, langcell or instructcell; 'demo-c2s', the packaged one, without it.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="LIST",
            help="Only these: .txt or .tsv (a label a line; after tabs a CL id and a definition), .json or .obo.",
            show_default=False,
        ),
    ] = None,
    scores: Annotated[
        bool,
        typer.Option(
            "--scores",
            help="Score every label of --labels against the others (not whether any fits), with runner-up and margin.",
        ),
    ] = False,
    definitions: Annotated[
        bool, typer.Option("--definitions", help="langcell: put the labels' definitions into their texts.")
    ] = False,
    alpha: Annotated[
        float, typer.Option("--alpha", help="langcell: weight of the similarity of vectors, 1 for nothing else.")
    ] = 0.1,
    rerank: Annotated[
        str,
        typer.Option(
            "--rerank",
            metavar="all|sure|K",
            help="langcell: match all texts; as many as make the label sure; or the K most similar ones.",
        ),
    ] = "all",
    unknown_below: Annotated[
        float, typer.Option("--unknown-below", help="langcell: cells of a lower score are called unknown.")
    ] = 0.0,
    text_template: Annotated[
        str | None,
        typer.Option(
            "--text-template",
            help="langcell: text of a label, with {name} and {definition}.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", help="instructcell: what is asked, as drug_sensitivity_prediction.", show_default=False),
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(
            "--instruction", help="instructcell: ask in your own words, {cell} for the cell.", show_default=False
        ),
    ] = None,
    values: options.SetOption = None,
    in_words: Annotated[
        bool,
        typer.Option("--in-words", help="instructcell: let a chat model answer freely, and find the label there."),
    ] = False,
    organism: options.OrganismOption = "human",
    num_genes: options.SentenceOption = None,
    templates: options.TemplatesOption = None,
    template: options.TemplateOption = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-new-tokens", min=1, help="Longest free answer; 32, or 64 for instructcell.", show_default=False
        ),
    ] = None,
    batch_size: options.BatchOption = 32,
    seed: Annotated[int, typer.Option("--seed", help="Key of the draws: equal values, prompts.")] = 0,
    layer: options.LayerOption = None,
    input_: options.InputOption = options.Values.auto,
    limit: options.LimitOption = None,
    majority_vote: Annotated[
        str | None,
        typer.Option(
            "--majority-vote",
            metavar="COLUMN|auto",
            help="Also give clusters their most frequent label: a column of obs, or clusters of the vectors.",
            show_default=False,
        ),
    ] = None,
    min_share: Annotated[
        float, typer.Option("--min-share", help="Share of a cluster that must agree; others are Heterogeneous.")
    ] = 0.0,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="OUT.html",
            help="Also write one page: labels, confusion table, dot plot.",
            show_default=False,
        ),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option("--truth", metavar="COLUMN", help="Known labels, for the report.", show_default=False),
    ] = None,
    markers: Annotated[
        Path | None,
        typer.Option(
            "--markers",
            metavar="JSON",
            help="Genes of the report's dot plot by label; chosen from the cells without it.",
            show_default=False,
        ),
    ] = None,
    key_added: options.KeyOption = "cellscribe",
    backend: options.BackendOption = options.BackendChoice.auto,
    plans: options.PlansOption = None,
    threads: options.ThreadsOption = None,
    quiet: options.QuietOption = False,
) -> int:
    """Label cells, freely or from a list (obs cellscribe_label and cellscribe_score in an .h5ad output)."""
    from cellscribe.cli.annotate_job import Afterwards, AnnotateJob, Following, Matching
    from cellscribe.cli.annotating import annotate_file
    from cellscribe.engine.matching.zero_shot import ZeroShot
    from cellscribe.engine.rank_model import TEMPLATE
    from cellscribe.engine.text_types import TextSettings

    matching = Matching(
        ZeroShot(alpha, rerank_of(rerank)),
        definitions,
        unknown_below,
        TEMPLATE if text_template is None else text_template,
    )

    settings = TextSettings(organism, num_genes, options.template_number(template), seed)
    chosen = options.bundle_or_packaged(bundle, quiet)
    job = AnnotateJob(
        cells, chosen, output, labels, settings, templates, max_new_tokens, batch_size, layer, input_.value, limit,
        key_added, backend.value, threads, quiet, scores, matching,
        Afterwards(majority_vote, min_share, report, truth, markers), plans,
        Following(task, instruction, tuple(values or ()), in_words), template,
    )  # fmt: skip
    return annotate_file(job)


def rerank_of(text: str) -> int | Literal["all", "sure"]:
    """Return what ``--rerank`` says; UsageError for another word."""
    from cellscribe.engine.errors import UsageError

    words: dict[str, Literal["all", "sure"]] = {"all": "all", "sure": "sure"}
    if text not in words and not text.isdecimal():
        raise UsageError(f"--rerank is {text!r}; choose all, sure, or how many texts to match, from 1 on.")
    return words.get(text) or int(text)
