"""``cellscribe triton``: a bundle becomes a model repository for Triton Inference Server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellscribe.cli import options
from cellscribe.cli.guard import guarded


@guarded
def triton(
    bundle: options.BundleArgument,
    repository: Annotated[Path, typer.Argument(metavar="MODEL_REPO", help="The folder to make.", show_default=False)],
    name: Annotated[
        str, typer.Option("--name", help="Name of the model; the bundle's without it.", show_default=False)
    ] = "",
    slots: Annotated[int, typer.Option("--slots", min=1, max=512, help="Texts in progress at a time.")] = 32,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, max=256, help="Longest text that a request may ask for.")
    ] = 96,
    plans: Annotated[
        Path | None,
        typer.Option("--plans", metavar="DIR", help="TensorRT plans made with build --output.", show_default=False),
    ] = None,
    quiet: options.QuietOption = False,
) -> None:
    """Write a model repository for Triton Inference Server.

    It has the bundle's graphs as models of their own, and a Python model that takes the genes and values of a cell and
    sends its text as it grows.
    """
    from cellscribe.cli.console import error_console
    from cellscribe.engine.bundle import open_bundle
    from cellscribe.engine.triton import RepositoryOptions, write_repository

    opened = open_bundle(options.bundle_folder(bundle))
    made = write_repository(opened, repository, RepositoryOptions(name, slots, max_new_tokens, plans))
    if not quiet:
        for line in made.lines():
            error_console().print(line, markup=False, soft_wrap=True)
