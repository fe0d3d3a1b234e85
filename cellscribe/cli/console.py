"""Where things are printed: results on stdout, everything about them on stderr."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

MAX_WIDTH = 128


def output_console() -> Console:
    """Return a console on stdout, no wider than reads well."""
    return _console(stderr=False)


def error_console() -> Console:
    """Return a console on stderr."""
    return _console(stderr=True)


def _console(stderr: bool) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, emoji=False)
    console.width = min(console.width, MAX_WIDTH)
    return console


def notes(facts: Iterable[tuple[str, str]], quiet: bool) -> None:
    """Print facts about the run, label and text, on stderr."""
    if quiet:
        return
    from cellscribe.cli.terminal import facts_table

    console = error_console()
    console.print()
    console.print(facts_table(facts))
    console.print()
