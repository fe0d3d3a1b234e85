"""``cellscribe serve``: the service and its page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellscribe.cli import options
from cellscribe.cli.guard import guarded


@guarded
def serve(
    bundle: options.BundleArgument = "demo",
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="Port; 0 takes a free one.")] = 8000,
    slots: Annotated[int, typer.Option("--slots", min=1, help="Texts in progress at the same time.")] = 32,
    cells: Annotated[
        Path | None,
        typer.Option(
            "--cells",
            metavar="DEMO.h5ad",
            help="Cells to pick from on the page; packaged ones without it.",
            show_default=False,
        ),
    ] = None,
    max_queue: Annotated[int, typer.Option("--max-queue", min=1, help="Cells that may wait for a slot.")] = 1024,
    client_share: Annotated[
        float | None,
        typer.Option(
            "--client-share",
            min=0.01,
            max=1.0,
            help="Part of what others leave free of --max-queue, and of the files under way, that one client (a key, "
            "or an address) may take. Half without it; all where everybody is one client: with a single key, or on "
            "this machine alone without keys.",
            show_default=False,
        ),
    ] = None,
    max_cells: Annotated[int, typer.Option("--max-cells", min=1, help="Cells of one request.")] = 256,
    max_upload_mb: Annotated[int, typer.Option("--max-upload-mb", min=1, help="Largest uploaded file, in MB.")] = 512,
    max_disk_mb: Annotated[
        int, typer.Option("--max-disk-mb", min=1, help="All uploaded files together, kept or being sent, in MB.")
    ] = 1536,
    deadline: Annotated[float, typer.Option("--deadline", min=1, help="Longest time of a request, in s.")] = 300.0,
    grace: Annotated[float, typer.Option("--grace", min=0, help="Time to finish texts at the end, in s.")] = 30.0,
    seed: Annotated[int, typer.Option("--seed", help="Key of the draws between equal values of a cell.")] = 0,
    backend: options.BackendOption = options.BackendChoice.auto,
    plans: options.PlansOption = None,
    threads: options.ThreadsOption = None,
    genes: options.GenesOption = None,
    quiet: options.QuietOption = False,
) -> int:
    """Answer requests for one bundle over HTTP, with a page to try it on.

    Only this machine can reach it unless --host says otherwise. Where CELLSCRIBE_API_KEY is set, clients need one of
    its keys (several are separated by commas).
    """
    from cellscribe.cli.serving import ServeJob, serve_bundle

    return serve_bundle(
        ServeJob(
            bundle=bundle,
            host=host,
            port=port,
            slots=slots,
            cells=cells,
            max_queue=max_queue,
            client_share=client_share,
            max_cells=max_cells,
            max_upload_bytes=max_upload_mb * 1_000_000,
            max_disk_bytes=max_disk_mb * 1_000_000,
            deadline_s=deadline,
            grace_s=grace,
            seed=seed,
            backend=backend.value,
            plans=plans,
            threads=threads,
            genes=genes,
            is_quiet=quiet,
        )
    )
