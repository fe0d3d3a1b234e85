"""Files that cells are picked from: the one that the service was started with, and those that clients upload."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells import CellSource, open_cells
from cellscribe.engine.cells.limits import ReadLimits
from cellscribe.engine.cells.values import ValueChoice
from cellscribe.engine.errors import InputError
from cellscribe.engine.service.limits import ServiceLimits
from cellscribe.engine.service.problems import RequestError

DEMO = "demo"
LISTED_CELLS = 20_000  # that a listing names
_MOST_GROUPS = 60
_STEM = 60  # characters of an upload's name, four bytes each at most


class CellFile:
    """One file of cells, open for as long as the service keeps it; safe to use from several threads.

    Attributes
    ----------
    source_id, name
        What clients call it, and the file's own name.
    source
        The opened cells.
    lock
        Held by who reads blocks of it.
    expires_s
        How long it is kept after its last use; None for ever.
    """

    def __init__(
        self,
        source_id: str,
        path: Path,
        name: str,
        values: ValueChoice,
        reading: ReadLimits,
        expires_s: float | None = None,
    ) -> None:
        self.source_id, self.name, self.path, self.expires_s = source_id, name, path, expires_s
        self.source: CellSource = open_cells(path, values=values, limits=reading)
        self.lock = threading.Lock()
        self.used = time.monotonic()
        self.extras: dict[str, Any] = {}  # what others worked out about it

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
            found = self.source.obs_column(name).iloc[:LISTED_CELLS]
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

    def close(self) -> None:
        """End the reading process."""
        with self.lock:
            self.source.close()


class CellFiles:
    """All files that cells can be picked from.

    Parameters
    ----------
    demo
        The file that is there from the start.
    limits
        How many uploads are kept, how large they may be, and for how long.
    on_change
        Hears how many uploads there are.
    """

    def __init__(self, demo: Path, limits: ServiceLimits, on_change: Callable[[int], None] = lambda _: None) -> None:
        self._limits, self._on_change = limits, on_change
        self._folder = tempfile.TemporaryDirectory(prefix="cellscribe-uploads-")
        self._lock = threading.Lock()
        self._uploads: OrderedDict[str, CellFile] = OrderedDict()
        self.demo = CellFile(DEMO, demo, demo.name, "auto", ReadLimits())

    def new_path(self, name: str) -> Path:
        """Return where the next upload is to be written: a folder of its own, and its name as errors will say it."""
        folder = Path(self._folder.name) / secrets.token_hex(8)
        folder.mkdir()
        stem = "".join(c if c.isalnum() or c in " ._-" else "_" for c in name.removesuffix(".h5ad"))
        return folder / f"{stem[:_STEM] or 'upload'}.h5ad"

    def discard(self, path: Path) -> None:
        """Remove an upload's file."""
        shutil.rmtree(path.parent, ignore_errors=True)

    def opened(self, path: Path, name: str, values: ValueChoice) -> CellFile:
        """Open an uploaded file, in a process with limits of its own, for one who ends it with :meth:`end`.

        Raises
        ------
        InputError
            When it cannot be read; it is gone then.
        """
        source_id, limits = f"up-{secrets.token_urlsafe(12)}", self._limits
        try:
            return CellFile(source_id, path, name, values, limits.reading, limits.upload_s)
        except BaseException:
            self.discard(path)
            raise

    def add(self, path: Path, name: str, values: ValueChoice) -> CellFile:
        """Open an uploaded file and keep it; what was used longest ago makes room. As :meth:`opened` for errors."""
        found = self.opened(path, name, values)
        with self._lock:
            self._uploads[found.source_id] = found
        self.sweep()
        return found

    def get(self, source_id: str) -> CellFile:
        """Return a file; RequestError 404 where there is none of that name."""
        self.sweep()
        if source_id == DEMO:
            return self.demo
        with self._lock:
            if source_id not in self._uploads:
                raise RequestError(
                    404, f"there is no file {source_id!r}, or it was not used for too long; upload it again.", "source"
                )
            self._uploads.move_to_end(source_id)
            found = self._uploads[source_id]
        found.used = time.monotonic()
        return found

    def remove(self, source_id: str) -> None:
        """Forget an upload; RequestError 404 where there is none of that name."""
        if source_id == DEMO:
            raise RequestError(404, "the file that the service was started with stays; give an upload's id.", "source")
        self.get(source_id)
        with self._lock:
            gone = self._uploads.pop(source_id, None)
        if gone is not None:
            self.end(gone)

    def sweep(self) -> None:
        """Forget uploads that are too old, or too many."""
        now = time.monotonic()
        with self._lock:
            old = [key for key, one in self._uploads.items() if now - one.used > self._limits.upload_s]
            gone = [self._uploads.pop(key) for key in old]
            while len(self._uploads) > self._limits.uploads:
                gone.append(self._uploads.popitem(last=False)[1])
        for one in gone:
            self.end(one)
        self._on_change(len(self._uploads))

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            gone, self._uploads = list(self._uploads.values()), OrderedDict()
        for one in [self.demo, *gone]:
            one.close()
        self._folder.cleanup()

    def end(self, one: CellFile) -> None:
        """Close an upload and remove its file."""
        one.close()
        self.discard(one.path)
        self._on_change(len(self._uploads))
