"""What the models of all families but LingoCell's have in common, as a user meets them."""

from __future__ import annotations

from typing import Protocol

from anndata import AnnData

from cellscribe.engine.backends.choose import Choice
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.cells.given import Cells
from cellscribe.engine.errors import UsageError
from cellscribe.engine.output.anndata import annotate
from cellscribe.engine.output.run import Run


class OpenedBundle(Protocol):
    """A bundle on a device, applied to opened cells."""

    bundle: Bundle
    backend_choice: Choice

    @property
    def device(self) -> str:
        """Device and provider in words."""


class FamilyModel:
    """A bundle on a device; a base."""

    def __init__(self, opened: OpenedBundle) -> None:
        self._opened = opened

    @property
    def bundle(self) -> Bundle:
        """The bundle."""
        return self._opened.bundle

    @property
    def device(self) -> str:
        """Device and provider in words."""
        return self._opened.device

    @property
    def backend_choice(self) -> Choice:
        """What was opened, and which better backends were passed over, and why."""
        return self._opened.backend_choice


def check_threads(threads: int | None) -> None:
    """Raise UsageError for less than one thread."""
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}; choose at least 1.")


def kept(run: Run, cells: Cells, key_added: str, copy: bool) -> Run:
    """Write a run into the AnnData object that was given, unless it is to stay as it is; return the run."""
    if isinstance(cells, AnnData) and not copy:
        annotate(cells, run, key_added)
    return run
