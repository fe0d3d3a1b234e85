"""The reading process: opens one file, answers questions about it on its pipes, and ends with them.

Run by :mod:`cellscribe.engine.cells.child`; imports numpy and h5py and nothing heavier.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import struct
import sys
from dataclasses import asdict
from typing import Any

import h5py
import numpy as np

from cellscribe.engine.cells import wire
from cellscribe.engine.cells.hdf5_guard import Guard
from cellscribe.engine.cells.hdf5_matrix import MatrixReader, open_matrix, read_rows
from cellscribe.engine.cells.hdf5_table import Table, packed
from cellscribe.engine.cells.limits import ReadLimits
from cellscribe.engine.cells.log10 import AGAIN, MARK, marked
from cellscribe.engine.cells.parts import sample_rows
from cellscribe.engine.cells.values import ValueStats, layer_origin
from cellscribe.engine.errors import InputError

Message = tuple[dict[str, Any], list[wire.Array]]
_STATS_CELLS = 512
_CACHE_BYTES = 64 << 20
_MAX_COLUMNS = 20_000


class FileSession:
    """One open file and the answers it gives; every public method is a question, named in the message."""

    def __init__(self, path: str, name: str, limits: ReadLimits, answers: Answers) -> None:
        self.limits, self.answers, self.name = limits, answers, name
        self.file = h5py.File(path, "r", locking=False, rdcc_nbytes=_CACHE_BYTES)
        self.guard = Guard(self.file, name, limits)
        self.readers: dict[str, MatrixReader] = {}
        self.obs: Table | None = None

    def describe(self) -> Message:
        """Cells, layers and columns of the file."""
        if not self.guard.has(self.file, "obs") or not self.guard.has(self.file, "var"):
            raise InputError(f"{self.name} has no obs and var, so it is HDF5 but no .h5ad; write it with anndata.")
        self.obs = Table(self.guard, self.file, "obs")
        layers = self.guard.group(self.file, "layers") if self.guard.has(self.file, "layers") else {}
        columns = self.obs.columns()[:_MAX_COLUMNS]
        header = {
            "layers": [str(key) for key in layers],
            "has_x": self.guard.has(self.file, "X"),
            "has_raw": self._raw() is not None,
            "obs_columns": columns,
            "log10": self._log10(),
        }
        return header, wire.pack_text(self.obs.names())

    def var(self, is_raw: bool) -> Message:
        """Gene names, and the names of the other columns."""
        table = self._var(is_raw)
        return {"columns": table.columns()[:_MAX_COLUMNS]}, wire.pack_text(table.names())

    def var_column(self, is_raw: bool, column: str) -> Message:
        """One column of var."""
        return packed(self._var(is_raw).column(column))

    def obs_column(self, column: str) -> Message:
        """One column of obs."""
        assert self.obs is not None
        return packed(self.obs.column(column))

    def matrix(self, origin: str) -> Message:
        """Shape, layout and type of a matrix."""
        reader = self._reader(origin)
        return {"shape": list(reader.shape), "layout": reader.layout, "dtype": reader.dtype.str}, []

    def stats(self, origin: str, is_lenient: bool = False) -> Message:
        """What values a matrix holds: all of them, or rows spread over a large one."""
        reader, stats = self._reader(origin), ValueStats(is_lenient=is_lenient)
        is_small = reader.n_stored <= self.limits.full_check_values
        rows = np.arange(reader.shape[0]) if is_small else sample_rows(reader.shape[0])
        for start in range(0, len(rows), _STATS_CELLS):
            some = rows[start : start + _STATS_CELLS]
            stats.add(read_rows(reader, some), some)
            self.answers.tick()
        return asdict(stats), []

    def rows(self, origin: str, rows: list[int] | None = None, span: list[int] | None = None) -> Message:
        """Rows of a matrix, named one by one or as [start, stop)."""
        reader = self._reader(origin)
        wanted = np.arange(*span) if span is not None else np.asarray(rows, dtype=np.int64)
        part = read_rows(reader, wanted)
        return {}, [part.indptr, part.indices, part.data]

    def _log10(self) -> list[float] | None:
        """What the file says of X as log10(1 + x); what cannot be read there says nothing."""
        try:
            uns = self.guard.member(self.file, "uns")
            group = self.guard.member(uns, MARK)
            found = marked(lambda key: _scalar(self.guard.member(group, key)), self.guard.has(uns, AGAIN))
        except (InputError, AttributeError, ValueError):
            return None
        return None if found is None else found.plain

    def _reader(self, origin: str) -> MatrixReader:
        if origin not in self.readers:
            parent, key = self._place(origin)
            self.readers[origin] = open_matrix(self.guard, parent, key, self.answers.tick)
        return self.readers[origin]

    def _place(self, origin: str) -> tuple[Any, str]:
        if origin == "X":
            return self.file, "X"
        raw = self._raw()
        if origin == "raw.X" and raw is not None:
            return raw
        layers = self.guard.group(self.file, "layers")
        return layers, next(key for key in layers if layer_origin(key) == origin)

    def _raw(self) -> tuple[Any, str] | None:
        if self.guard.has(self.file, "raw.X"):
            return self.file, "raw.X"
        if self.guard.has(self.file, "raw"):
            raw = self.guard.group(self.file, "raw")
            return (raw, "X") if self.guard.has(raw, "X") else None
        return None

    def _var(self, is_raw: bool) -> Table:
        raw = self._raw()
        if not is_raw or raw is None:
            return Table(self.guard, self.file, "var")
        return Table(self.guard, raw[0], "raw.var" if raw[1] == "raw.X" else "var")


class Answers:
    """The pipe back, and the watch that ends this process when one answer takes too long."""

    def __init__(self, fd: int, limits: ReadLimits) -> None:
        self.fd, self.seconds = fd, limits.seconds

    def arm(self) -> None:
        """Start the watch anew; it needs neither Python nor HDF5 to go off."""
        faulthandler.dump_traceback_later(self.seconds + 5, exit=True, file=2)

    def tick(self) -> None:
        """Say that work goes on."""
        self.arm()
        self.send({"tick": True})

    def send(self, header: dict[str, Any], arrays: list[wire.Array] | None = None) -> None:
        """Write one message."""
        for piece in wire.encode(header, arrays or []):
            view = memoryview(piece)
            while len(view):
                view = view[os.write(self.fd, view) :]


def answer(session: FileSession, answers: Answers, request: dict[str, Any]) -> None:
    """Answer one question; whatever goes wrong becomes a sentence."""
    question, number = request.pop("ask"), request.pop("id")
    answers.arm()
    try:
        header, arrays = getattr(session, question)(**request)
    except MemoryError:
        limit = session.limits.memory_bytes / 2**30
        header, arrays = {"error": f"{session.name} needs more than {limit:.3g} GiB to read; it may be hostile."}, []
    except Exception as error:
        header, arrays = {"error": _sentence(session.name, error)}, []
    faulthandler.cancel_dump_traceback_later()
    answers.send({"id": number} | header, arrays)


def _scalar(dataset: Any) -> Any:
    """One number or text; None for anything else."""
    if dataset.shape != ():
        return None
    return dataset.asstr()[()] if h5py.check_string_dtype(dataset.dtype) is not None else dataset[()]


def _sentence(name: str, error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    text = " ".join(str(error).split())[:200]
    return f"{name} cannot be read ({type(error).__name__}: {text}); it may be truncated or damaged, so fetch it again."


def main() -> None:
    """Read the first request (path, limits), open the file, then answer until the pipe closes."""
    out = os.dup(1)
    os.dup2(2, 1)
    opening = json.loads(sys.stdin.buffer.read(*struct.unpack("<Q", sys.stdin.buffer.read(8))))
    limits = ReadLimits(**opening["limits"])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kind = resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS
    resource.setrlimit(kind, (limits.memory_bytes, resource.getrlimit(kind)[1]))
    answers = Answers(out, limits)
    answers.arm()
    try:
        session = FileSession(opening["path"], opening["name"], limits, answers)
    except Exception as error:
        answers.send({"id": 0, "error": _sentence(opening["name"], error)})
        return
    answers.send({"id": 0})
    while len(head := sys.stdin.buffer.read(8)) == 8:
        answer(session, answers, json.loads(sys.stdin.buffer.read(*struct.unpack("<Q", head))))
