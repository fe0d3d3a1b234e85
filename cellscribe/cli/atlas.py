"""``cellscribe atlas``: cells of many files, larger than memory, resumable."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cellscribe.cli import options
from cellscribe.cli.describe import SamplingChoice, sampling_of
from cellscribe.cli.guard import guarded


class TaskChoice(StrEnum):
    """What is made of every cell."""

    describe = "describe"
    embed = "embed"
    annotate = "annotate"


class EngineChoice(StrEnum):
    """Who runs the workers."""

    local = "local"
    ray = "ray"


@guarded
def atlas(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help=".h5ad, .zarr, 10x .h5 or .mtx folders; folders of them, patterns, URLs.",
            show_default=False,
        ),
    ],
    output: Annotated[str, typer.Option("-o", "--output", metavar="DIR", help="Folder of the results, or its URL.")],
    task: Annotated[TaskChoice, typer.Option(help="What is made of every cell.")] = TaskChoice.describe,
    bundle: options.BundleOption = "demo",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was cut off.")] = False,
    shard_cells: Annotated[int, typer.Option("--shard-cells", min=1, help="Cells of a file of results.")] = 4096,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Processes with a model each, on cores (or GPUs) of their own.")
    ] = 1,
    engine: Annotated[
        EngineChoice, typer.Option(help=r"local: this machine; ray: a cluster (cellscribe\[ray]).")
    ] = EngineChoice.local,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            metavar="HOST:PORT",
            help="Head of the cluster; $RAY_ADDRESS or this machine without it.",
            show_default=False,
        ),
    ] = None,
    limit: options.LimitOption = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="CONDITION",
            help="Only cells where it holds: 'tissue == \"blood\"'. A missing value equals nothing and is not true.",
            show_default=False,
        ),
    ] = None,
    per_cluster: Annotated[
        str | None,
        typer.Option(
            "--per-cluster",
            metavar="OBS_COLUMN",
            help="describe: one text per group of this column, from the vectors of its cells.",
            show_default=False,
        ),
    ] = None,
    cells_where: Annotated[
        str | None,
        typer.Option(
            "--cells-where",
            metavar="CONDITION",
            help="With --per-cluster: also a text for each cell where it holds.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="FILE", help="annotate: the labels to choose from.", show_default=False),
    ] = None,
    sampling: Annotated[SamplingChoice, typer.Option(help="How the next token is chosen.")] = SamplingChoice.greedy,
    top_p: Annotated[float | None, typer.Option("--top-p", help="Nucleus size; 0.9 without it.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", help="0.7 without it.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, help="Longest text, in tokens.", show_default=False)
    ] = None,
    top_genes: Annotated[int, typer.Option("--top-genes", min=0, help="Genes to list per text.")] = 10,
    batch_size: options.BatchOption = 32,
    layer: options.LayerOption = None,
    input_: options.InputOption = options.Values.auto,
    genes: options.GenesOption = None,
    hvg_flavor: options.FlavorOption = None,
    organism: options.OrganismOption = "human",
    num_genes: options.SentenceOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Key of all random numbers.")] = 0,
    backend: options.BackendOption = options.BackendChoice.auto,
    plans: options.PlansOption = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", min=1, max=options.MAX_THREADS, help="CPU threads of each worker.", show_default=False
        ),
    ] = None,
    report_by: Annotated[
        str | None,
        typer.Option(
            "--report-by",
            metavar="OBS_COLUMN",
            help="The report's genes by the groups of this column.",
            show_default=False,
        ),
    ] = None,
    metrics: Annotated[
        Path | None,
        typer.Option("--metrics", metavar="FILE.prom", help="Also keep Prometheus text there.", show_default=False),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="End at the first input that cannot be read.")] = False,
    quiet: options.QuietOption = False,
) -> int:
    """Describe, embed or annotate an atlas: many files, more cells than fit into memory, for hours.

    Results are Parquet files of some cells each, with a manifest beside them. A run that is cut off, however, goes on
    with --resume where it stopped; `cellscribe merge` joins the results to an .h5ad file.
    """
    from cellscribe.cli.atlasing import Asked, run_job
    from cellscribe.engine.atlas.job import AtlasJob, Running

    job = AtlasJob(
        task=task.value,
        bundle=bundle,
        shard_cells=shard_cells,
        limit=limit,
        where=where,
        layer=layer,
        values=input_.value,
        sampling=sampling_of(sampling, top_p, temperature, seed),
        max_new_tokens=max_new_tokens,
        top_genes=top_genes,
        labels=labels,
        genes=genes,
        hvg_flavor=hvg_flavor.value if hvg_flavor else None,
        organism=organism,
        genes_per_cell=num_genes,
        seed=seed,
        report_by=report_by,
    )
    running = Running(workers, threads, backend.value, plans, batch_size, strict, ray_address)
    asked = Asked(tuple(inputs), output, job, running, resume, engine.value, metrics, per_cluster, cells_where, quiet)
    return run_job(asked)
