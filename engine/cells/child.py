"""The process that reads a cell file, and the conversation with it.

A cell file from elsewhere can crash HDF5's C code, hang it, or ask for all memory, and checking it first and reading it
afterwards would leave a second chance to do so. So one child process opens the file, checks it, reads it and sends
plain arrays over a pipe for as long as the source lives; this process never opens the file with HDF5, sees bytes of
declared type and length, and checks them once more. The child works on the next block while this process computes on
the last one, so the pipe costs little; starting it costs about a quarter of a second.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import weakref
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cellscribe.engine.cells import wire
from cellscribe.engine.cells.kinds import Kind
from cellscribe.engine.cells.limits import ReadLimits
from cellscribe.engine.errors import InputError

_PIPE_BYTES = 1 << 20
_BOOT = """
import json, sys, types
paths, packages = map(json.loads, sys.argv[1:])
sys.path += [path for path in paths if path not in sys.path]
for name, folder in packages.items():
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
from cellscribe.engine.cells.reading import main
main()
"""


class Child:
    """The reading process and the conversation with it; safe to use from several threads."""

    def __init__(self, path: Path, kind: Kind, limits: ReadLimits) -> None:
        self.name, self.limits = path.name or path.resolve().name, limits
        self._lock = threading.RLock()
        self._sent = 0
        self._waiting: list[int] = []
        self._stash: dict[int, wire.Message] = {}
        self._process = _start()
        self._end = weakref.finalize(self, _stop, self._process)
        opening = {"path": str(path.resolve()), "kind": kind, "name": self.name, "limits": asdict(limits)}
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

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process."""
        self._end()

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


def _start() -> subprocess.Popen[bytes]:
    here = Path(__file__).resolve().parent
    engine = str(here.parent)
    packages = {"cellscribe": engine, "cellscribe.engine": engine, "cellscribe.engine.cells": str(here)}
    paths = [path for path in sys.path if Path(path).is_absolute()]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HDF5_", "PYTHON"))}
    environment |= {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", _BOOT, json.dumps(paths), json.dumps(packages)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        process_group=0,  # Ctrl-C is for us to handle
    )
    if process.stdout is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
