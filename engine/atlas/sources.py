"""The files of a plan, one open at a time, as a worker goes through its shards."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from cellscribe.engine.atlas.groups import group_names
from cellscribe.engine.atlas.job import AtlasJob
from cellscribe.engine.atlas.plan import FileEntry, Shard, chosen_rows, opened
from cellscribe.engine.atlas.stamps import digest_of, stamp_of
from cellscribe.engine.atlas.urls import Scratch, is_url
from cellscribe.engine.atlas.where import Condition
from cellscribe.engine.cells import CellSource
from cellscribe.engine.errors import InputError

Rows = npt.NDArray[np.int64]
_PROBE = 4096


def is_there(path: Path | None) -> bool:
    """Whether a file can still be read at both ends, or a folder be listed; True where there is no path."""
    if path is None:
        return True
    try:
        if path.is_dir():
            return bool(os.listdir(path))
        with path.open("rb") as file:
            file.read(_PROBE)
            file.seek(-min(_PROBE, path.stat().st_size), os.SEEK_END)
            file.read(_PROBE)
    except OSError:
        return False
    return True


def _changed(entry: FileEntry) -> InputError:
    return InputError(
        f"{entry.name} has changed since the run began; put the file back as it was and add --resume, or begin anew in "
        "another folder."
    )


class Sources:
    """Gives the cells of shards.

    Parameters
    ----------
    job
        Says how cells are chosen.
    files
        Those of the plan.
    """

    def __init__(self, job: AtlasJob, files: tuple[FileEntry, ...]) -> None:
        self._job, self._files = job, files
        self._condition = None if job.condition is None else Condition.parse(job.condition)
        self._open: tuple[int, CellSource, Rows] | None = None
        self._groups: tuple[int, npt.NDArray[np.object_]] | None = None
        self._scratch = Scratch()
        self._stamps: dict[int, str] = {}  # of files of this machine, when they were opened

    def groups(self, shard: Shard) -> list[str | None] | None:
        """Return what the column ``report_by`` says of the cells of a shard, None where no column is named.

        Cells of a file that lacks it have no group.
        """
        if self._job.report_by is None:
            return None
        source, rows = self.of(shard)
        if self._groups is None or self._groups[0] != shard.file:
            has_it = self._job.report_by in source.obs_columns
            column = source.obs_column(self._job.report_by) if has_it else None
            names = np.full(source.n_cells, None, object) if column is None else group_names(column)
            self._groups = shard.file, names
        found: list[str | None] = self._groups[1][rows].tolist()
        return found

    def of(self, shard: Shard) -> tuple[CellSource, Rows]:
        """Return the source of a shard, and its rows int64 [N]; the source that was given before may be closed then.

        Raises
        ------
        InputError
            When the file cannot be opened any more, or is another one than when the plan was made.
        """
        if self._open is None or self._open[0] != shard.file or not self._open[1].is_alive:
            self.close()
            entry = self._files[shard.file]
            path = self._scratch.local(entry.path)
            self._note(shard.file, path)
            source = opened(path, self._job)
            try:
                rows = chosen_rows(source, self._condition, entry.chosen)
            except BaseException:
                source.close()
                raise
            if (source.n_cells, source.n_genes, len(rows)) != (entry.n_cells, entry.n_genes, entry.chosen):
                source.close()
                raise _changed(entry)
            self._open = (shard.file, source, rows)
        _, source, rows = self._open
        return source, rows[shard.start : shard.stop]

    def check(self, shard: Shard) -> None:
        """Raise InputError where the file of a shard was written to since it was opened."""
        entry, seen = self._files[shard.file], self._stamps.get(shard.file)
        if seen is not None and stamp_of(Path(entry.path)) != seen:
            raise _changed(entry)

    def _note(self, file: int, path: Path) -> None:
        """Raise InputError for a file that is another one than when the plan was made; note its stamp."""
        entry, stamp = self._files[file], stamp_of(path)
        if stamp != entry.stamp and entry.digest and digest_of(path) != entry.digest:
            raise _changed(entry)
        if not is_url(entry.path):
            self._stamps[file] = stamp

    def close(self) -> None:
        """Close what is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None
        self._scratch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
