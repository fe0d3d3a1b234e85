"""``cellscribe search``: an index of cells in, cells or texts out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellscribe.cli import options
from cellscribe.cli.guard import guarded


@guarded
def search(
    index: Annotated[Path, typer.Option("--index", metavar="DIR", help="A folder that cellscribe index made.")],
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="What the cells are to be.", show_default=False)
    ] = None,
    cells: Annotated[
        list[str] | None,
        typer.Option(
            "--cell",
            metavar="ID",
            help="Cells like this one, or its texts with --texts; repeatable.",
            show_default=False,
        ),
    ] = None,
    texts_file: Annotated[
        Path | None,
        typer.Option(
            "--texts", metavar="LIST", help="Texts as for annotate: .txt, .tsv, .json or .obo.", show_default=False
        ),
    ] = None,
    number: Annotated[int, typer.Option("-k", "--number", min=1, help="How many of the nearest.")] = 10,
    truth: Annotated[
        str | None,
        typer.Option(
            "--truth",
            metavar="COLUMN",
            help="A kept column of known labels: also say how often --texts and cells find each other.",
            show_default=False,
        ),
    ] = None,
    definitions: Annotated[bool, typer.Option("--definitions", help="Put the definitions into the texts.")] = False,
    text_template: Annotated[
        str | None,
        typer.Option(
            "--text-template", help="Text of a label of --texts, with {name} and {definition}.", show_default=False
        ),
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare all cells, though the index has faiss.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT", help="Result: .csv, .parquet or .jsonl.", show_default=False),
    ] = None,
    bundle: Annotated[
        str | None,
        typer.Option(
            "--bundle", metavar="DIR", help="Where the index's bundle lies now, if it was moved.", show_default=False
        ),
    ] = None,
    backend: options.BackendOption = options.BackendChoice.auto,
    plans: options.PlansOption = None,
    threads: options.ThreadsOption = None,
    quiet: options.QuietOption = False,
) -> int:
    """Find cells by text, texts by cell, or cells like a cell."""
    from cellscribe.cli.searching import SearchJob, search_index

    job = SearchJob(
        index=index,
        texts=tuple(texts or ()),
        cells=tuple(dict.fromkeys(cells or ())),
        texts_file=texts_file,
        number=number,
        truth=truth,
        has_definitions=definitions,
        template=text_template,
        is_exact=exact,
        output=output,
        bundle=bundle,
        backend=backend.value,
        plans=plans,
        threads=threads,
        is_quiet=quiet,
    )
    return search_index(job)
