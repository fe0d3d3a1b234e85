"""Cells of a shard on their way from where they are read to where the model is: an Arrow row, and a source again.

A model looks at more than the cells of a shard: at the names of genes, at what the values of the whole file are, and
sometimes at cells sampled over the file. The first travel with every shard; for the last the file itself is opened.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from cellscribe.engine.atlas.job import AtlasJob
from cellscribe.engine.atlas.plan import FileEntry, Shard
from cellscribe.engine.atlas.sources import Sources, is_there
from cellscribe.engine.cells import CellSource, CsrBlock, ValueKind
from cellscribe.engine.cells.parts import Part, Rows, is_run, join, take
from cellscribe.engine.errors import InputError

_BLOCK_CELLS = 512
SCHEMA = pa.schema(
    {
        "shard": pa.list_(pa.int64(), 4),  # number, file, start, stop
        "header": pa.large_binary(),
        "rows": pa.large_list(pa.int64()),
        "cell_ids": pa.large_list(pa.large_string()),
        "indptr": pa.large_list(pa.int64()),
        "genes": pa.large_list(pa.int32()),
        "values": pa.large_list(pa.float32()),
        "bad": pa.map_(pa.int64(), pa.string()),
        "unread": pa.map_(pa.int64(), pa.string()),
    }
)


@dataclass(frozen=True)
class FileHeader:
    """What a source says of its file; see :class:`cellscribe.engine.cells.CellSource`."""

    name: str
    n_cells: int
    obs_columns: tuple[str, ...]
    var_names: tuple[str, ...]
    var_ensembl: tuple[str | None, ...] | None
    var_symbols: tuple[str | None, ...] | None
    value_kind: ValueKind
    value_origin: str
    value_note: str
    value_dtype: str
    is_log10: bool
    notes: tuple[str, ...]

    @classmethod
    def of(cls, source: CellSource) -> FileHeader:
        """Take it from an opened source."""
        return cls(
            source.name, source.n_cells, source.obs_columns, tuple(source.var_names), source.var_ensembl,
            source.var_symbols, source.value_kind, source.value_origin, source.value_note, source.value_dtype.str,
            source.is_log10, source.notes,
        )  # fmt: skip

    def pack(self) -> bytes:
        """Return it as bytes."""
        return zlib.compress(json.dumps(asdict(self)).encode(), 1)

    @classmethod
    def unpack(cls, packed: bytes) -> FileHeader:
        """Return the header of :meth:`pack`."""
        told: dict[str, Any] = json.loads(zlib.decompress(packed))
        plain: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in told.items()}
        return cls(**plain)


def shard_tables(job: AtlasJob, entry: FileEntry, shards: tuple[Shard, ...]) -> Iterator[pa.Table]:
    """Read shards of one file, and give each as a table of one row (``SCHEMA``).

    Cells that cannot be read are among ``unread`` with the reason.

    Raises
    ------
    InputError
        When the file cannot be opened any more, or is another one than when the plan was made.
    """
    file = shards[0].file
    with Sources(job, (entry,)) as sources:
        header = b""
        for shard in shards:
            source, rows = sources.of(Shard(shard.number, 0, shard.start, shard.stop))
            header = header or FileHeader.of(source).pack()
            part, unread = _read(source, rows)
            row = {
                "shard": [shard.number, file, shard.start, shard.stop],
                "header": header,
                "rows": rows,
                "cell_ids": source.obs_names[rows],
                "indptr": part.indptr,
                "genes": part.indices,
                "values": part.data,
                "bad": [(int(one), source.bad_cells[one]) for one in rows.tolist() if one in source.bad_cells],
                "unread": list(unread.items()),
            }
            yield pa.table([_column(one, row[one.name]) for one in SCHEMA], schema=SCHEMA)


def _column(field: pa.Field, value: Any) -> pa.Array:
    """Return a column of one value."""
    if not pa.types.is_large_list(field.type):
        return pa.array([value], field.type)
    inner = pa.array(value, field.type.value_type)
    return pa.LargeListArray.from_arrays(pa.array([0, len(inner)], pa.int64()), inner)


def _read(source: CellSource, rows: Rows) -> tuple[Part, dict[int, str]]:
    """Read rows; those that cannot be read are empty, with the reason."""
    unread: dict[int, str] = {}
    parts = [
        part
        for start in range(0, len(rows), _BLOCK_CELLS)
        for part in _careful(source, rows[start : start + _BLOCK_CELLS], unread)
    ]
    return join(parts), unread


def _careful(source: CellSource, rows: Rows, unread: dict[int, str]) -> Iterator[Part]:
    try:
        yield from [block.part for block in source.blocks(rows, _BLOCK_CELLS)]
        return
    except InputError as error:
        if not is_there(source.path):
            raise
        if len(rows) == 1 or not source.is_alive:
            unread |= dict.fromkeys(rows.tolist(), str(error).removesuffix("."))
            yield Part(np.zeros(len(rows) + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
            return
    for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
        yield from _careful(source, half, unread)


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
