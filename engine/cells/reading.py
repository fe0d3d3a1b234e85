"""The reading process: opens one file, answers questions about it on its pipes, and ends with them.

Run by :mod:`cellscribe.engine.cells.child`; imports numpy and what reads the kind of file, and nothing heavier.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import struct
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cellscribe.engine.cells import wire
from cellscribe.engine.cells.contents import Contents, open_contents
from cellscribe.engine.cells.limits import ReadLimits
from cellscribe.engine.cells.matrix_readers import MatrixReader, read_rows
from cellscribe.engine.cells.parts import sample_rows
from cellscribe.engine.cells.table import packed
from cellscribe.engine.cells.values import ValueStats
from cellscribe.engine.errors import InputError

Message = tuple[dict[str, Any], list[wire.Array]]
_STATS_CELLS = 512
_MAX_COLUMNS = 20_000


class FileSession:
    """One open file and the answers it gives; every public method is a question, named in the message."""

    def __init__(self, contents: Contents, name: str, limits: ReadLimits, answers: Answers) -> None:
        self.contents, self.limits, self.answers, self.name = contents, limits, answers, name
        self.readers: dict[str, MatrixReader] = {}

    def describe(self) -> Message:
        """Cells, layers and columns of the file."""
        contents = self.contents
        header = {
            "kind": contents.kind,
            "notes": list(contents.notes),
            "layers": contents.layers,
            "has_x": contents.has_x,
            "has_raw": contents.has_raw,
            "obs_columns": contents.obs_columns[:_MAX_COLUMNS],
            "obsm": contents.obsm_names[:_MAX_COLUMNS],
            "log10": contents.log10,
            "log_base": contents.log_base,
        }
        return header, wire.pack_text(contents.obs_names())

    def var(self, is_raw: bool) -> Message:
        """Gene names, and the names of the other columns."""
        columns = self.contents.var_columns(is_raw)[:_MAX_COLUMNS]
        return {"columns": columns}, wire.pack_text(self.contents.var_names(is_raw))

    def var_column(self, is_raw: bool, column: str) -> Message:
        """One column of var."""
        return packed(self.contents.var_column(is_raw, column))

    def obs_column(self, column: str) -> Message:
        """One column of obs."""
        return packed(self.contents.obs_column(column))

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

    def _reader(self, origin: str) -> MatrixReader:
        if origin not in self.readers:
            self.readers[origin] = self.contents.open_matrix(origin)
        return self.readers[origin]


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


def _sentence(name: str, error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    text = " ".join(str(error).split())[:200]
    return f"{name} cannot be read ({type(error).__name__}: {text}); it may be truncated or damaged, so fetch it again."


def main() -> None:
    """Read the first request (path, kind, limits), open the file, then answer until the pipe closes."""
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
        contents = open_contents(Path(opening["path"]), opening["kind"], opening["name"], limits, answers.tick)
    except Exception as error:
        answers.send({"id": 0, "error": _sentence(opening["name"], error)})
        return
    answers.send({"id": 0})
    session = FileSession(contents, opening["name"], limits, answers)
    while len(head := sys.stdin.buffer.read(8)) == 8:
        answer(session, answers, json.loads(sys.stdin.buffer.read(*struct.unpack("<Q", head))))
