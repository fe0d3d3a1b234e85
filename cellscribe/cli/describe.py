"""``cellscribe describe``: cells in, text out."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cellscribe.cli import options
from cellscribe.cli.guard import guarded

if TYPE_CHECKING:
    from cellscribe.engine.types import Sampling


class SamplingChoice(StrEnum):
    """How tokens are chosen."""

    greedy = "greedy"
    top_p = "top-p"


@guarded
def describe(
    cells: options.CellsArgument,
    output: options.OutOption = None,
    bundle: options.BundleOption = "demo",
    cell_id: Annotated[
        list[str] | None, typer.Option("--cell-id", metavar="ID", help="Only this cell; may be repeated.")
    ] = None,
    sampling: Annotated[SamplingChoice, typer.Option(help="How the next token is chosen.")] = SamplingChoice.greedy,
    top_p: Annotated[
        float | None, typer.Option("--top-p", help="Nucleus size, with --sampling top-p; 0.9 without it.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="Temperature, with --sampling top-p; 0.7 without it.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", help="Longest text, in tokens.")] = 96,
    seed: Annotated[
        int, typer.Option("--seed", help="Key of all random numbers: sampling, and ties between bins.")
    ] = 0,
    batch_size: options.BatchOption = 32,
    top_genes: Annotated[int, typer.Option("--top-genes", min=0, help="Genes to list per text.")] = 10,
    pool: Annotated[
        str | None,
        typer.Option("--pool", metavar="OBS_COLUMN", help="One text per group of this column.", show_default=False),
    ] = None,
    save_attn: Annotated[
        Path | None,
        typer.Option("--save-attn", metavar="OUT.npz", help="Also write all attention.", show_default=False),
    ] = None,
    report: options.ReportOption = None,
    layer: options.LayerOption = None,
    input_: options.InputOption = options.Values.auto,
    key_added: options.KeyOption = "cellscribe",
    limit: options.LimitOption = None,
    backend: options.BackendOption = options.BackendChoice.auto,
    plans: options.PlansOption = None,
    threads: options.ThreadsOption = None,
    genes: options.GenesOption = None,
    hvg_flavor: options.FlavorOption = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print the texts as they are written.")] = False,
    quiet: options.QuietOption = False,
) -> int:
    """Describe cells in words, with the genes the words rest on."""
    from cellscribe.cli.work import Job, describe_file

    job = Job(
        cells=cells,
        bundle=bundle,
        output=output,
        report=report,
        save_attn=save_attn,
        key_added=key_added,
        cell_ids=tuple(cell_id or ()),
        limit=limit,
        pool=pool,
        layer=layer,
        values=input_.value,
        sampling=sampling_of(sampling, top_p, temperature, seed),
        max_new_tokens=max_new_tokens,
        batch_size=1 if stream else batch_size,
        num_top_genes=top_genes,
        backend=backend.value,
        plans=plans,
        threads=threads,
        genes=genes,
        hvg_flavor=hvg_flavor.value if hvg_flavor else None,
        is_streamed=stream,
        is_quiet=quiet,
    )
    return describe_file(job)


def sampling_of(choice: SamplingChoice, top_p: float | None, temperature: float | None, seed: int) -> Sampling:
    """Return the sampling that the options ask for.

    Raises
    ------
    UsageError
        For values out of range, or a nucleus or temperature given to greedy sampling.
    """
    from cellscribe.engine.errors import UsageError
    from cellscribe.engine.types import Sampling

    if choice is SamplingChoice.top_p:
        return Sampling(0.9 if top_p is None else top_p, 0.7 if temperature is None else temperature, seed)
    if top_p is not None or temperature is not None:
        raise UsageError("--top-p and --temperature have no effect on greedy sampling; add --sampling top-p.")
    return Sampling(seed=seed)
