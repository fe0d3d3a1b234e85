"""The bar of ``cellscribe bench``: on stderr, in a terminal only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cellscribe.cli.console import error_console
from cellscribe.engine.bench.progress import Silent, Watcher
from cellscribe.engine.bench.row import Row

if TYPE_CHECKING:
    from rich.progress import Progress


@contextmanager
def watching(is_quiet: bool, num_questions: int) -> Iterator[Watcher]:
    """Give a watcher that keeps a bar on stderr, in a terminal only."""
    console = error_console()
    if is_quiet or not console.is_terminal:
        yield Silent()
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rows]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield _Bar(bar, num_questions)


class _Bar:
    """Shows the group in work, its rounds, and how many rows are finished."""

    def __init__(self, bar: Progress, num_questions: int) -> None:
        self._bar, self._num_questions = bar, num_questions
        self._asked: list[str] = []
        self._rows = 0
        self._task = bar.add_task("roofline", total=None, rows="")

    def on_group(self, question: str, key: str) -> None:
        """Show what is timed now."""
        if question not in self._asked:
            self._asked.append(question)
        name = f"{len(self._asked)} of {self._num_questions}: {key}"
        self._bar.reset(self._task, total=None, description=name)

    def on_round(self, done: int, expected: int) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=done, total=expected)

    def on_rows(self, rows: tuple[Row, ...]) -> None:
        """Count the rows."""
        self._rows += len(rows)
        self._bar.update(self._task, rows=f"{self._rows} rows")

    def on_skip(self, key: str, why: str) -> None:
        """Say what cannot be measured."""
        self._bar.console.print(f"left out, {key}: {why}", style="yellow", markup=False, soft_wrap=True)
