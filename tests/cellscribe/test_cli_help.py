from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer
from typer.testing import CliRunner

from cellscribe.cli.app import build


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, one in getattr(command, "commands", {}).items():
        yield from commands(one, (*path, name))


def test_no_help_loses_words_in_brackets() -> None:
    """What stands in brackets is markup to the one who prints help, unless it is escaped."""
    seen = 0
    for path, command in commands(typer.main.get_command(build())):
        shown = CliRunner().invoke(build(), [*path, "--help"], env={"COLUMNS": "300", "TERM": "dumb"}).stdout
        for told in (command.help, *(getattr(one, "help", None) for one in command.params)):
            for word in re.findall(r"\\?(\[\w+\])", told or ""):
                seen += 1
                assert word in shown, (path, word)
    assert seen


def test_the_extra_of_ray_is_named() -> None:
    shown = CliRunner().invoke(build(), ["atlas", "--help"], env={"COLUMNS": "300", "TERM": "dumb"}).stdout
    assert "cellscribe[ray]" in " ".join(shown.split())
