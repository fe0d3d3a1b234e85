"""The native library for CPUs: packed weights, products, and the decoder, called through C functions."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from ctypes import c_char_p, c_double, c_float, c_int32, c_int64, c_void_p
from enum import IntEnum
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellscribe.kernels.cpu_structs import fingerprint

NAME = "libcellscribe_cpu.so"
# A library elsewhere, for work on it; and one of the instruction sets that this machine has.
PATH_VARIABLE, SET_VARIABLE = "CELLSCRIBE_CPU_LIBRARY", "CELLSCRIBE_CPU_SET"

_MOST_THREADS = 1024
_WITHOUT_THREADS = ("_free", "_bytes")

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


class Kind(IntEnum):
    """How a packed weight keeps its numbers."""

    FLOAT = 0
    HALF = 1
    BRAIN = 2
    INT8 = 3
    INT4 = 4


def load_cpu_library() -> ctypes.CDLL | None:
    """Load the native library; None where the package was built without a C++ compiler, or for another release."""
    path = library_path()
    return None if path is None else _open(path)


def library_path() -> Path | None:
    """Return where the library lies, or None."""
    named = os.environ.get(PATH_VARIABLE)
    if named is not None:
        return Path(named) if named and Path(named).is_file() else None
    import cellscribe.kernels as package

    found = (Path(folder) / NAME for folder in package.__path__)
    return next((path for path in found if path.is_file()), None)


@cache
def _open(path: Path) -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        return None
    check = getattr(library, "cellscribe_cpu_fingerprint", None)
    if check is None:
        return None
    check.restype = c_int64
    if check() != fingerprint():
        return None
    library.cellscribe_cpu_sets.restype = c_char_p
    return library


def instruction_sets() -> tuple[str, ...]:
    """Return the instruction sets of the library that run on this machine, best first; none without the library."""
    library = load_cpu_library()
    if library is None:
        return ()
    found = tuple(library.cellscribe_cpu_sets().decode().split())
    asked = os.environ.get(SET_VARIABLE)
    return tuple(one for one in found if one == asked) if asked else found


class CpuLibrary:
    """The functions of one instruction set, with a crew of threads.

    Parameters
    ----------
    threads
        How many threads share a product, the caller's included.
    instruction_set
        One of :func:`instruction_sets`; None takes the best.

    Raises
    ------
    RuntimeError
        When the library is not there, or this machine lacks the instructions.
    """

    def __init__(self, threads: int, instruction_set: str | None = None) -> None:
        sets = instruction_sets()
        library = load_cpu_library()
        if library is None or not sets or (instruction_set or sets[0]) not in sets:
            raise RuntimeError("the native CPU library is not there, or this machine lacks its instructions")
        if not 1 <= threads <= _MOST_THREADS:
            raise RuntimeError(f"{threads} threads cannot be started; ask for 1 to {_MOST_THREADS}")
        self.instruction_set = instruction_set or sets[0]
        self.num_threads = threads
        self._lock = threading.RLock()
        self._library = library
        library.cellscribe_threads_new.restype = c_void_p
        self.threads = c_void_p(library.cellscribe_threads_new(c_int32(threads)))
        if not self.threads:
            raise RuntimeError(f"{threads} threads could not be started; ask for fewer")
        self.close = weakref.finalize(self, _free_threads, library, self.threads, os.getpid())
        os.register_at_fork(after_in_child=_renewing(weakref.ref(self)))

    @cached_property
    def caller_alone(self) -> c_void_p:
        """A crew without threads of its own, which many may share: its loops run in the thread that calls."""
        made = c_void_p(self._library.cellscribe_threads_new(c_int32(1)))
        if not made:
            raise MemoryError("no room for a crew of threads")
        weakref.finalize(self, _free_threads, self._library, made, os.getpid())
        return made

    def function(self, name: str, restype: Any = None) -> Any:
        """Return a function by its name without the instruction set.

        Calls that compute wait for each other: threads and scratch are shared, and ctypes lets other Python threads go
        on meanwhile.
        """
        found = getattr(self._library, f"cellscribe_{name}_{self.instruction_set}")
        found.restype = restype
        if name.endswith(_WITHOUT_THREADS):
            return found

        def call(*given: Any) -> Any:
            with self._lock:  # read anew: a fork replaces it
                return found(*given)

        return call

    def renew_lock(self) -> None:
        """Forget who held the lock: in a forked process that thread is not there to give it back."""
        self._lock = threading.RLock()

    def greedy(self, logits: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return the most probable token of each row [B, V], the lowest of equals, and its log-probability [B]."""
        tokens, logprobs = np.empty(len(logits), np.int64), np.empty(len(logits), np.float32)
        rows, width = (c_int64(size) for size in logits.shape)
        self.function("greedy")(self.threads, pointer(logits), rows, width, pointer(tokens), pointer(logprobs))
        return tokens, logprobs

    def peak(self, kind: str, seconds: float = 0.2) -> float:
        """Measure the operations a second that all threads reach on registers: "float", "brain" or "bytes"."""
        number = ("float", "brain", "bytes").index(kind)
        return float(self.function("peak", c_double)(self.threads, c_int32(number), c_double(seconds)))


def _free_threads(library: ctypes.CDLL, threads: c_void_p, process: int) -> None:
    if os.getpid() == process:  # a forked process has none of these threads to wait for
        library.cellscribe_threads_free(threads)


def _renewing(library: weakref.ref[CpuLibrary]) -> Callable[[], None]:
    def renew() -> None:
        found = library()
        if found is not None:
            found.renew_lock()

    return renew


def pointer(array: Array | None) -> c_void_p:
    """Return the address of a contiguous array, which the caller keeps alive."""
    if array is None:
        return c_void_p(None)
    assert array.flags.c_contiguous
    return c_void_p(array.ctypes.data)


def packed_bytes(kind: Kind, k: int, n: int) -> int:
    """Return the bytes of a packed weight [K, N] with a scale for 32 numbers, as cpu/linear.h lays it out."""
    is_bytes = kind >= Kind.INT8
    row = {Kind.FLOAT: 64, Kind.HALF: 32, Kind.BRAIN: 32, Kind.INT8: 16, Kind.INT4: 8}[kind]
    kp = -(-k // 32) * 32 if is_bytes else k + k % 2 if kind == Kind.BRAIN else k
    return -(-n // 16) * (kp * row + 64 + (kp // 32 * 32 if is_bytes else 0))


class PackedWeight:
    """A weight [K, N] packed for products with rows [M, K]; filled column by column range.

    Parameters
    ----------
    library
        The library and its threads.
    kind
        How numbers are kept.
    k, n
        Sizes of the weight.
    has_bias
        Whether a bias is added to products.
    group
        Numbers of k that share a scale where they are kept as bytes, a multiple of 32.

    Raises
    ------
    MemoryError
        When there is no room for it.
    """

    def __init__(
        self, library: CpuLibrary, kind: Kind, k: int, n: int, *, has_bias: bool = False, group: int = 32
    ) -> None:
        if group < 32 or group % 32:
            raise ValueError(f"{group} numbers cannot share a scale, only multiples of 32")
        self.library, self.kind, self.k, self.n, self.group = library, kind, k, n, group
        numbers = c_int32(kind), c_int64(k), c_int64(n), c_int32(has_bias), c_int64(group)
        made = library.function("linear_new", c_void_p)(*numbers)
        if not made:
            raise MemoryError(f"no room for a weight of {k} x {n}")
        self.handle = c_void_p(made)
        self._free = weakref.finalize(self, library.function("linear_free"), self.handle)

    @property
    def bytes(self) -> int:
        """Bytes that one product reads of it."""
        return int(self.library.function("linear_bytes", c_int64)(self.handle))

    def put(self, column: int, numbers: Array) -> None:
        """Fill columns from `column` on with numbers [K, n], float32 or fp16."""
        numbers = np.ascontiguousarray(numbers)
        is_half = numbers.dtype == np.float16
        if not is_half:
            numbers = numbers.astype(np.float32, copy=False)
        fits = numbers.shape == (self.k, numbers.shape[1]) and column + numbers.shape[1] <= self.n
        self._check(fits and self.kind <= Kind.BRAIN, numbers.shape)
        self.library.function("linear_numbers")(
            self.handle,
            self.library.threads,
            c_int64(column),
            c_int64(numbers.shape[1]),
            pointer(numbers),
            c_int64(numbers.shape[1]),
            c_int32(is_half),
        )

    def put_blocks(self, column: int, packed: Array, scales: Array) -> None:
        """Fill columns from `column` on as MatMulNBits has them.

        packed uint8 [n, K/group, group] (half of the last in 4 bits), scales [n, K/group].
        """
        packed, scales = np.ascontiguousarray(packed), np.ascontiguousarray(scales, dtype=np.float32)
        size = self.group // 2 if self.kind == Kind.INT4 else self.group
        blocks = -(-self.k // self.group)
        self._check(self.kind >= Kind.INT8 and packed.size == packed.shape[0] * blocks * size, packed.shape)
        self._check(column + packed.shape[0] <= self.n, packed.shape)
        self._check(scales.size == packed.shape[0] * blocks, scales.shape)
        self.library.function("linear_blocks")(
            self.handle,
            self.library.threads,
            c_int64(column),
            c_int64(packed.shape[0]),
            pointer(packed),
            pointer(scales),
        )

    def put_bias(self, column: int, bias: Array) -> None:
        """Fill the bias of columns from `column` on."""
        bias = np.ascontiguousarray(bias, dtype=np.float32)
        self._check(column + bias.size <= self.n, bias.shape)
        self.library.function("linear_bias")(self.handle, c_int64(column), c_int64(bias.size), pointer(bias))

    def __call__(self, rows: Floats) -> Floats:
        """Multiply rows [M, K] -> [M, N]."""
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        self._check(rows.ndim == 2 and rows.shape[1] == self.k, rows.shape)
        out = np.empty((len(rows), self.n), np.float32)
        run = self.library.function("linear_run", c_int32)
        if run(self.handle, self.library.threads, pointer(rows), c_int64(len(rows)), pointer(out)):
            raise MemoryError("no room for a product")
        return out

    def _check(self, ok: bool, shape: tuple[int, ...]) -> None:
        if not ok:
            raise ValueError(
                f"an array of shape {shape} does not fit a weight of {self.k} x {self.n}, {self.kind.name}"
            )


__all__ = ["CpuLibrary", "Kind", "PackedWeight", "c_float", "instruction_sets", "load_cpu_library", "pointer"]
