"""A file that cells are picked from, open for as long as somebody needs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells import CellSource, open_cells
from cellscribe.engine.cells.limits import ReadLimits
from cellscribe.engine.cells.values import ValueChoice
from cellscribe.engine.errors import InputError
from cellscribe.engine.service.problems import RequestError

DEMO = "demo"
LISTED_CELLS = 20_000  # that a listing names
_MOST_GROUPS = 60


class CellFile:
    """One file of cells, open for as long as the service keeps it or reads it; safe to use from several threads.

    Attributes
    ----------
    source_id, name, owner
        What clients call it, the file's own name, and the client that sent it.
    source
        The opened cells; :meth:`reading` them is for one thread at a time.
    lock
        Held by who reads them.
    expires_s
        How long it is kept after its last use; None for ever.
    extras
        What others worked out about it.
    """

    def __init__(
        self,
        source_id: str,
        path: Path,
        name: str,
        values: ValueChoice,
        reading: ReadLimits,
        expires_s: float | None = None,
        owner: str = "",
    ) -> None:
        self.source_id, self.name, self.path, self.expires_s, self.owner = source_id, name, path, expires_s, owner
        self.source: CellSource = open_cells(path, values=values, limits=reading)
        self.lock, self._guard = threading.Lock(), threading.Lock()
        self._readers, self._on_close = 0, list[Callable[[], None]]()
        self._is_ended = self._is_closed = False
        self.used = time.monotonic()
        self.extras: dict[str, Any] = {}

    @contextmanager
    def reading(self) -> Iterator[CellSource]:
        """Read the cells, alone; a file that ends meanwhile is closed afterwards.

        Raises
        ------
        RequestError
            404 once it has ended.
        """
        with self._guard:
            if self._is_ended:
                raise RequestError(
                    404, f"the file {self.source_id!r} was removed meanwhile; upload it again.", "source"
                )
            self._readers += 1
        try:
            with self.lock:
                yield self.source
        finally:
            with self._guard:
                self._readers -= 1
            self._close_if_free()

    def rows_of(self, cell_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the rows of named cells; RequestError 404 for one that is not there."""
        self.used = time.monotonic()
        try:
            return self.source.rows_of(list(cell_ids))
        except InputError as error:
            raise RequestError(404, str(error), "cell_ids") from error

    def groups(self, column: str | None) -> dict[str, Any] | None:
        """Return a column of obs as names and codes of the listed cells; the first that has few names, for None."""
        for name in [column] if column else self.source.obs_columns:
            with self.reading() as source:
                found = source.obs_column(name).iloc[:LISTED_CELLS]
            texts = ["" if value is None or value != value else str(value) for value in found.tolist()]
            names = sorted(set(texts))
            if column or 1 < len(names) <= _MOST_GROUPS:
                of = {text: i for i, text in enumerate(names)}
                return {"column": name, "names": names, "of": [of[text] for text in texts]}
        return None

    def listing(
        self, column: str | None, places: tuple[str, npt.NDArray[Any]] | None, genes: object, is_local: bool
    ) -> dict[str, Any]:
        """Return what a client needs to pick cells: names, places, groups, and the path for one that is here."""
        source, shown = self.source, slice(0, LISTED_CELLS)
        drawn = None
        if places is not None:
            kind, at = places
            xy = np.round(at[shown].astype(float), 4)
            drawn = {"kind": kind, "x": xy[:, 0].tolist(), "y": xy[:, 1].tolist()}
        return {
            "source": self.source_id,
            "name": self.name,
            "file": str(self.path) if self.source_id == DEMO and is_local else None,
            "n_cells": source.n_cells,
            "ids": source.obs_names[shown].tolist(),
            "is_truncated": source.n_cells > LISTED_CELLS,
            "map": drawn,
            "groups": self.groups(column),
            "columns": list(source.obs_columns[:200]),
            "values": source.value_note,
            "genes": genes,
            "expires_s": self.expires_s,
        }

    @property
    def is_read(self) -> bool:
        """Whether somebody reads it at this moment."""
        return self._readers > 0

    def close(self, then: Callable[[], None] = lambda: None) -> None:
        """Let nobody read it any more, and end the reading process once those are through who do.

        Parameters
        ----------
        then
            What is done after that, by whichever thread comes last.
        """
        with self._guard:
            self._is_ended = True
            self._on_close.append(then)
        self._close_if_free()

    def _close_if_free(self) -> None:
        with self._guard:
            if not self._is_ended or self._readers or self._is_closed:
                return
            self._is_closed = True
        self.source.close()
        for then in self._on_close:
            then()
