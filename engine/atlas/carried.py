"""Cells of a shard on their way from where they are read to where the model is: one row of an Arrow table.

A model looks at more than the cells of a shard: at the names of genes, at what the values of the whole file are, and
sometimes at cells sampled over the file. The first travel with every shard; for the last the file itself is opened.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cellscribe.engine.atlas.job import AtlasJob
from cellscribe.engine.atlas.plan import FileEntry, Shard
from cellscribe.engine.atlas.sources import Sources, is_there
from cellscribe.engine.cells import CellSource, ValueKind
from cellscribe.engine.cells.parts import Part, Rows, join
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
            here = Shard(shard.number, 0, shard.start, shard.stop)
            source, rows = sources.of(here)
            header = header or FileHeader.of(source).pack()
            part, unread = _read(source, rows)
            sources.check(here)
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
