"""Cells of shards that were carried here (:mod:`cellscribe.engine.atlas.carried`), as a source again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from cellscribe.engine.atlas.carried import FileHeader
from cellscribe.engine.atlas.job import AtlasJob
from cellscribe.engine.atlas.plan import FileEntry, Shard
from cellscribe.engine.atlas.sources import Sources
from cellscribe.engine.cells import CellSource, CsrBlock
from cellscribe.engine.cells.parts import Part, Rows, is_run, take
from cellscribe.engine.errors import InputError


@dataclass(frozen=True)
class Carried:
    """Cells of a shard: `rows` int64 [N] of the file, their values, and why some have none."""

    shard: Shard
    rows: Rows
    cell_ids: npt.NDArray[Any]
    part: Part
    bad: dict[int, str]
    unread: dict[int, str]

    @classmethod
    def of(cls, table: pa.Table) -> Carried:
        """Take them from a table of :func:`shard_tables`; values are not copied."""
        shard = Shard(*(int(one) for one in table["shard"][0].as_py()))
        indptr, genes, values, rows = (_numbers(table, name) for name in ("indptr", "genes", "values", "rows"))
        names = np.array(table["cell_ids"][0].as_py(), dtype=object)
        bad, unread = (dict(table[name][0].as_py()) for name in ("bad", "unread"))
        return cls(shard, rows, names, Part(indptr, genes, values), bad, unread)

    def places_of(self, rows: Rows) -> Rows | None:
        """Return where rows of the file are among the cells, None unless all are."""
        places = np.searchsorted(self.rows, rows)
        is_here = len(rows) and places.max() < len(self.rows) and bool((self.rows[places] == rows).all())
        return places if is_here else None


def _numbers(table: pa.Table, name: str) -> npt.NDArray[Any]:
    found: npt.NDArray[Any] = table[name].chunk(0).flatten().to_numpy(zero_copy_only=True)
    return found


class CarriedSource(CellSource):
    """The cells of a file of which some shards are at hand; whatever else is asked for, the file is opened for.

    Parameters
    ----------
    header
        Of the file.
    file
        Opens it.
    """

    def __init__(self, header: FileHeader, file: Callable[[], CellSource]) -> None:
        self.path, self.name, self.notes = None, header.name, header.notes
        self.obs_columns = header.obs_columns
        self.obs_names = np.full(header.n_cells, "", dtype=object)
        self.var_names = np.array(header.var_names, dtype=object)
        self.var_ensembl, self.var_symbols = header.var_ensembl, header.var_symbols
        self.value_kind, self.value_origin = header.value_kind, header.value_origin
        self.value_note, self.value_dtype = header.value_note, np.dtype(header.value_dtype)
        self.is_log10, self.bad_cells = header.is_log10, {}
        self._file = file
        self._held: tuple[Carried, ...] = ()

    @property
    def is_alive(self) -> bool:
        """True: nothing has to be asked of another process."""
        return True

    def hold(self, cells: Carried) -> None:
        """Take the cells of a shard."""
        self.obs_names[cells.rows] = cells.cell_ids
        self.bad_cells |= cells.bad
        self._held = (*self._held, cells)

    def release(self, shard: Shard) -> None:
        """Let go of the cells of a shard."""
        for one in self._held:
            if one.shard == shard:
                self.obs_names[one.rows] = ""
                for row in one.bad:
                    self.bad_cells.pop(row, None)
        self._held = tuple(one for one in self._held if one.shard != shard)

    def obs_column(self, name: str) -> pd.Series[Any]:
        """Return a column of obs, from the file."""
        return self._file().obs_column(name)

    def fingerprint(self) -> str:
        """Return that of the file."""
        return self._file().fingerprint()

    def blocks(self, rows: npt.ArrayLike | None = None, block_cells: int = 512) -> Iterator[CsrBlock]:
        """Give cells, from memory where all of them are there; see :meth:`CellSource.blocks`."""
        wanted = self.checked_rows(rows)
        for one in self._held:
            places = one.places_of(wanted)
            if places is not None:
                yield from self._cut(one, wanted, places, block_cells)
                return
        yield from self._file().blocks(wanted, block_cells)

    def close(self) -> None:
        """Let go of all cells."""
        self._held = ()

    def _cut(self, held: Carried, wanted: Rows, places: Rows, block_cells: int) -> Iterator[CsrBlock]:
        for start in range(0, len(wanted), block_cells):
            rows, at = wanted[start : start + block_cells], places[start : start + block_cells]
            for row in rows.tolist() if held.unread else ():
                if row in held.unread:
                    raise InputError(f"{held.unread[row]}.")
            yield CsrBlock(rows, _rows_of(held.part, at), self.n_genes)


def _rows_of(part: Part, at: Rows) -> Part:
    if not is_run(at):
        return take(part, at)
    pointers = part.indptr[int(at[0]) : int(at[-1]) + 2]
    first, last = int(pointers[0]), int(pointers[-1])
    return Part(pointers - first, part.indices[first:last], part.data[first:last])


class CarriedSources(Sources):
    """Gives the cells of shards that were carried here, as :class:`Sources` gives them from their files."""

    def __init__(self, job: AtlasJob, files: tuple[FileEntry, ...]) -> None:
        super().__init__(job, files)
        self._source: tuple[int, CarriedSource] | None = None
        self._rows: dict[int, tuple[CarriedSource, Rows]] = {}

    def hold(self, table: pa.Table) -> Shard:
        """Take a table of :func:`shard_tables`, and return its shard."""
        cells = Carried.of(table)
        file = cells.shard.file
        if self._source is None or self._source[0] != file:
            header = FileHeader.unpack(table["header"][0].as_py())
            opened = Shard(0, file, 0, 0)
            self._source = (file, CarriedSource(header, lambda: super(CarriedSources, self).of(opened)[0]))
        source = self._source[1]
        source.hold(cells)
        self._rows[cells.shard.number] = (source, cells.rows)
        return cells.shard

    def of(self, shard: Shard) -> tuple[CellSource, Rows]:
        """Return the source of a shard that is held, and its rows."""
        return self._rows[shard.number]

    def release(self, shard: Shard) -> None:
        """Let go of a shard."""
        source, _ = self._rows.pop(shard.number)
        source.release(shard)
