"""Cells of an .h5ad file that this process never opens.

A cell file from elsewhere can crash HDF5's C code, hang it, or ask for all memory, and checking it first and reading it
afterwards would leave a second chance to do so. So one child process opens the file, checks it, reads it and sends
plain arrays over a pipe for as long as the source lives; this process sees bytes of declared type and length and checks
them once more. The child works on the next block while this process computes on the last one, so the pipe costs
little; starting it costs about a quarter of a second.
"""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from cellscribe.engine.cells import wire
from cellscribe.engine.cells.limits import ReadLimits
from cellscribe.engine.cells.parts import Part, Rows, check_indices, check_pointers
from cellscribe.engine.cells.tables import VarTable, series_of, var_table
from cellscribe.engine.cells.values import ValueStats
from cellscribe.engine.errors import InputError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_BOOT = """
import sys, types
for name, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
from cellscribe.engine.cells.hdf5_child import main
main()
"""


class Child:
    """The reading process and the conversation with it; safe to use from several threads."""

    def __init__(self, path: Path, limits: ReadLimits) -> None:
        self.name, self.limits = path.name, limits
        self._lock = threading.RLock()
        self._sent = 0
        self._waiting: list[int] = []
        self._stash: dict[int, wire.Message] = {}
        self._process = _start()
        opening = {"path": str(path.resolve()), "name": path.name, "limits": asdict(limits)}
        try:
            self._write(opening)
            self._waiting.append(0)
            self.receive(0)
        except BaseException:
            self.close()
            raise

    def ask(self, question: str, **details: Any) -> wire.Message:
        """Ask and wait for the answer."""
        return self.receive(self.send(question, **details))

    def send(self, question: str, **details: Any) -> int:
        """Ask without waiting; returns the number to :meth:`receive` with."""
        with self._lock:
            self._drain()
            self._sent += 1
            self._write({"ask": question, "id": self._sent} | details)
            self._waiting.append(self._sent)
            return self._sent

    def receive(self, number: int) -> wire.Message:
        """Return an answer, or raise the InputError that it is."""
        with self._lock:
            while number not in self._stash:
                self._next()
            header, arrays = self._stash.pop(number)
        if "error" in header:
            raise InputError("".join(c for c in str(header["error"]) if c.isprintable())[:1000])
        return header, arrays

    def forget(self, number: int) -> None:
        """Drop an answer that nobody waits for any more."""
        with self._lock:
            if self._process.poll() is None:
                self._drain()
            self._stash.pop(number, None)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _drain(self) -> None:
        """Take what the process still has to say, so that it never blocks on a full pipe while we write."""
        while self._waiting:
            self._next()

    def _next(self) -> None:
        try:
            header, arrays = wire.decode(self._read, self.limits.memory_bytes)
            number = -1 if "tick" in header else int(header.pop("id"))
        except (ValueError, KeyError, TypeError, struct.error) as error:
            self.close()
            raise InputError(f"{self.name} made the reading process answer nonsense; it may be hostile.") from error
        if number in self._waiting:
            self._waiting.remove(number)
            self._stash[number] = (header, arrays)

    def _write(self, message: dict[str, Any]) -> None:
        text = json.dumps(message).encode()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(struct.pack("<Q", len(text)) + text)
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise self._death() from error

    def _read(self, n_bytes: int) -> bytearray:
        assert self._process.stdout is not None
        if self._process.stdout.closed:
            raise self._death()
        fd = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        buffer = bytearray(n_bytes)
        view = memoryview(buffer)
        while len(view):
            if not poll.poll(self.limits.seconds * 1000):
                self.close()
                raise InputError(
                    f"{self.name} kept the reading process busy for {self.limits.seconds:g} s without an answer; it "
                    "may be damaged or hostile, or raise ReadLimits.seconds for a slow disk."
                )
            n_read = os.readv(fd, [view])
            if n_read == 0:
                raise self._death()
            view = view[n_read:]
        return buffer

    def _death(self) -> InputError:
        code = self._process.wait()
        how = f"crashed ({signal.Signals(-code).name})" if code < 0 else f"ended early (exit code {code})"
        self._waiting.clear()
        return InputError(
            f"{self.name} cannot be read: the reading process {how}, so the file may be damaged or hostile, or "
            "memory is short; write the file again from the original data."
        )


class FileStore:
    """Cells of an .h5ad file, read by a :class:`Child`."""

    def __init__(self, path: Path, limits: ReadLimits) -> None:
        _check_path(path)
        self.path, self.name = path, path.name
        self._child = Child(path, limits)
        header, text = self._child.ask("describe")
        self.layers: tuple[str, ...] = tuple(header["layers"])
        self.has_x, self.has_raw = bool(header["has_x"]), bool(header["has_raw"])
        self.obs_columns: tuple[str, ...] = tuple(header["obs_columns"])
        self.obs_names = wire.unpack_text(*text)

    def shape(self, origin: str) -> tuple[int, int]:
        """Return cells and genes of a matrix."""
        rows, columns = self._child.ask("matrix", origin=origin)[0]["shape"]
        return int(rows), int(columns)

    def layout(self, origin: str) -> str:
        """Return "csr", "csc" or "dense"."""
        return str(self._child.ask("matrix", origin=origin)[0]["layout"])

    def stats(self, origin: str) -> ValueStats:
        """Return what values a matrix holds."""
        return ValueStats(**self._child.ask("stats", origin=origin)[0])

    def var(self, is_raw: bool) -> VarTable:
        """Return the names of the genes."""
        header, text = self._child.ask("var", is_raw=is_raw)

        def column(name: str) -> pd.Series[Any]:
            return series_of(*self._child.ask("var_column", is_raw=is_raw, column=name), name=name)

        return var_table(wire.unpack_text(*text), header["columns"], column)

    def obs_column(self, name: str) -> pd.Series[Any]:
        """Return a column of obs."""
        return series_of(*self._child.ask("obs_column", column=name), name=name)

    def stream(self, origin: str, groups: Sequence[Rows]) -> Iterator[Part]:
        """Yield the rows of every group, one group ahead of what is asked for."""
        n_genes = self.shape(origin)[1]
        numbers: list[int] = []
        try:
            for index in range(len(groups)):
                numbers = numbers or [self._ask_rows(origin, groups[index])]
                indptr, indices, data = self._child.receive(numbers.pop(0))[1]
                if index + 1 < len(groups):
                    numbers.append(self._ask_rows(origin, groups[index + 1]))
                check_pointers(indptr, len(data), n_genes, self.name)
                check_indices(indices, n_genes, self.name)
                yield Part(indptr, indices, data)
        finally:
            for number in numbers:
                self._child.forget(number)

    def _ask_rows(self, origin: str, rows: Rows) -> int:
        if len(rows) and rows[-1] - rows[0] + 1 == len(rows) and (rows[1:] == rows[:-1] + 1).all():
            return self._child.send("rows", origin=origin, span=[int(rows[0]), int(rows[-1]) + 1])
        return self._child.send("rows", origin=origin, rows=rows.tolist())

    def close(self) -> None:
        """End the reading process."""
        self._child.close()


def _start() -> subprocess.Popen[bytes]:
    here = Path(__file__).resolve().parent
    packages = ("cellscribe", here.parent), ("cellscribe.engine", here.parent), ("cellscribe.engine.cells", here)
    arguments = [str(item) for package in packages for item in package]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HDF5_", "PYTHON"))}
    environment |= {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _BOOT, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )


def _check_path(path: Path) -> None:
    """Refuse what is plainly not an .h5ad file, without HDF5."""
    if not path.exists():
        raise InputError(f"There is no file {path}; check the name.")
    if path.is_dir():
        raise InputError(f"{path} is a folder, not an .h5ad file; write a zarr store with adata.write_h5ad first.")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file; name an .h5ad file.")
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); check its permissions.") from error
    if head != _SIGNATURE:
        raise InputError(f"{path} is {'empty' if not head else 'not an HDF5 file'}, so it is no .h5ad; write it again.")
