"""What a run tells whoever watches it."""

from __future__ import annotations

from typing import Protocol

from cellscribe.engine.bench.row import Row


class Watcher(Protocol):
    """Is told how a run goes on."""

    def on_group(self, question: str, key: str) -> None:
        """A group of cases begins."""

    def on_round(self, done: int, expected: int) -> None:
        """A round of it is done, of so many as far as can be told."""

    def on_rows(self, rows: tuple[Row, ...]) -> None:
        """Rows are finished and written."""

    def on_skip(self, key: str, why: str) -> None:
        """A group cannot be measured here."""


class Silent:
    """Watches nothing."""

    def on_group(self, question: str, key: str) -> None:
        """Ignore it."""

    def on_round(self, done: int, expected: int) -> None:
        """Ignore it."""

    def on_rows(self, rows: tuple[Row, ...]) -> None:
        """Ignore it."""

    def on_skip(self, key: str, why: str) -> None:
        """Ignore it."""
