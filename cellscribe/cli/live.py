"""Texts as they are written, token by token."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live

from cellscribe.cli.terminal import cell_panel
from cellscribe.engine.output.running import RunningText
from cellscribe.engine.output.text import printable
from cellscribe.engine.types import Piece


class StreamView:
    """Shows the pieces of one cell after the other: a panel that grows in a terminal, plain text in a pipe.

    Parameters
    ----------
    console
        Where the texts go.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._current: RunningText | None = None
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish()

    def on_piece(self, cell_id: str, piece: Piece) -> None:
        """Show the next token of `cell_id`; another cell than before begins a new text."""
        if self._current is None or self._current.cell_id != cell_id:
            self._finish()
            self._begin(cell_id)
        assert self._current is not None
        self._current.add(piece)
        if self._live is not None:
            self._live.update(cell_panel(self._current.description(), self._console.width))
        else:
            self._write(printable(piece.text))

    def _begin(self, cell_id: str) -> None:
        self._current = RunningText(cell_id)
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=12)
            self._live.start()
        else:
            self._write(f"{printable(cell_id)}\n")

    def _finish(self) -> None:
        if self._current is None:
            return
        if self._live is not None:
            self._live.stop()
            self._live = None
        else:
            top = self._current.top_genes()
            genes = ", ".join(f"{gene} {100 * w:.1f} %" for gene, w in zip(top.symbols, top.weights, strict=True))
            self._write(f"\ntop genes: {printable(genes)}\n\n" if genes else "\n\n")
        self._current = None

    def _write(self, text: str) -> None:
        self._console.file.write(text)
        self._console.file.flush()
