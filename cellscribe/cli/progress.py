"""The progress bar: on stderr, in a terminal only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cellscribe.cli.console import error_console

if TYPE_CHECKING:
    from rich.progress import TaskID

Report = Callable[[int, int, int], None]


@contextmanager
def progress_bar(what: str, quiet: bool) -> Iterator[Report | None]:
    """Give a function to call with (cells done, cells in all, tokens so far), or None where no bar is shown."""
    console = error_console()
    if quiet or not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(style="green"),
        TextColumn(what),
        BarColumn(bar_width=None, complete_style="green", finished_style="green"),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rates]}", style="dim"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None, rates="")
        started = time.perf_counter()

        def report(done: int, total: int, tokens: int) -> None:
            bar.update(task, completed=done, total=total, rates=rates(done, tokens, time.perf_counter() - started))

        yield report


@contextmanager
def file_bars(quiet: bool = False) -> Iterator[Callable[[str, float], None] | None]:
    """Give a function to call with (file, share done) that keeps a bar per file, or None where no bar is shown."""
    console = error_console()
    if quiet or not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def report(what: str, share: float) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=1.0)
            bar.update(tasks[what], completed=share)

        yield report


def rates(cells: int, tokens: int, seconds: float) -> str:
    """Say cells and tokens a second."""
    if seconds <= 0:
        return ""
    parts = [f"{_short(cells / seconds)} cells/s"]
    if tokens:
        parts.append(f"{_short(tokens / seconds)} tokens/s")
    return " · ".join(parts)


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
