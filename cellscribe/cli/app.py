"""The ``cellscribe`` program: its commands and its entry point."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated

import typer

from cellscribe.cli.annotate import annotate
from cellscribe.cli.ask import ask
from cellscribe.cli.atlas import atlas
from cellscribe.cli.bench import bench
from cellscribe.cli.build import build as build_plans
from cellscribe.cli.c2s import app as c2s
from cellscribe.cli.compare import compare
from cellscribe.cli.demo import demo
from cellscribe.cli.describe import describe
from cellscribe.cli.doctor import doctor
from cellscribe.cli.embed import embed
from cellscribe.cli.export import export
from cellscribe.cli.generate import generate
from cellscribe.cli.guard import DEBUG_VARIABLE
from cellscribe.cli.index_cells import index
from cellscribe.cli.inspect import inspect
from cellscribe.cli.merge import merge
from cellscribe.cli.quantize import quantize
from cellscribe.cli.search import search
from cellscribe.cli.serve import serve
from cellscribe.cli.triton import triton
from cellscribe.cli.verify import verify

_COMMANDS = (
    demo,
    describe,
    annotate,
    ask,
    generate,
    compare,
    embed,
    atlas,
    merge,
    index,
    search,
    serve,
    export,
    quantize,
    build_plans,
    triton,
    verify,
    bench,
    inspect,
    doctor,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        import cellscribe

        typer.echo(f"cellscribe {cellscribe.__version__}")
        raise typer.Exit


def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help=f"Show the traceback of an unexpected error (or set {DEBUG_VARIABLE}=1).")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Fast inference for single-cell language models: cells in, text and vectors out.

    Exit codes: 0 done, 2 wrong usage, 3 bad input, 4 done but some cells failed, 130 interrupted.
    """
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"


def build() -> typer.Typer:
    """Return the program with all its commands."""
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for command in _COMMANDS:
        app.command()(command)
    app.add_typer(c2s(), name="c2s")
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 shows "?" instead of failing
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--debug" in given[1:]:  # accepted after the command too
        given = ["--debug", *(one for one in given if one != "--debug")]
    build()(args=given, prog_name="cellscribe")
