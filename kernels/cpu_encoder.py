"""Twins in Python of the structs in cpu/include/cellscribe/cpu_encoder.h, and the encoder behind them."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from ctypes import c_float, c_int32, c_int64, c_void_p

from cellscribe.kernels.cpu_library import CpuLibrary

_CELLS_A_THREAD = 4  # from which on no thread idles for long at the end

CONTINUOUS, CATEGORY, SCALING = range(3)  # value styles


class CpuEncoderLayer(ctypes.Structure):
    """Weights of one layer."""

    _fields_ = (
        ("qkv", c_void_p),
        ("out", c_void_p),
        ("linear1", c_void_p),
        ("linear2", c_void_p),
        ("norm1", c_void_p),
        ("norm2", c_void_p),
        ("eps1", c_float),
        ("eps2", c_float),
    )


class CpuTable(ctypes.Structure):
    """A token table and its LayerNorm."""

    _fields_ = (("numbers", c_void_p), ("norm", c_void_p), ("is_half", c_int64), ("eps", c_float))


class CpuEncoderShape(ctypes.Structure):
    """Sizes and weights of an encoder."""

    _fields_ = (
        ("d_model", c_int64),
        ("n_layers", c_int64),
        ("n_heads", c_int64),
        ("d_ffn", c_int64),
        ("attention_kind", c_int64),
        ("value_style", c_int64),
        ("genes", CpuTable),
        ("values", CpuTable),
        ("expand", c_void_p),
        ("value_linear", c_void_p),
        ("value_norm", c_void_p),
        ("value_eps", c_float),
        ("max_value", c_float),
        ("layers", ctypes.POINTER(CpuEncoderLayer)),
    )


class CpuCell(ctypes.Structure):
    """The real tokens of one cell."""

    _fields_ = (
        ("count", c_int64),
        ("num_values", c_int64),
        ("genes", c_void_p),
        ("codes", c_void_p),
        ("values", c_void_p),
        ("rows", c_void_p),
        ("memory", c_void_p),
        ("is_half", c_int64),
    )


def fingerprint() -> int:
    """Return the number that a library with these structs gives; see cpu/encoder_api.h."""
    layer, table, shape, cell = map(ctypes.sizeof, (CpuEncoderLayer, CpuTable, CpuEncoderShape, CpuCell))
    return layer * 1009 * 1009 + table * 31 + shape * 1009 + cell + 1


class NativeEncoder:
    """An encoder of the native library; the caller keeps alive what `shape` points to.

    Raises
    ------
    RuntimeError
        When the library is of another release.
    MemoryError
        When there is no room for it.
    """

    def __init__(self, library: CpuLibrary, shape: CpuEncoderShape) -> None:
        if library.function("encoder_fingerprint", c_int64)() != fingerprint():
            raise RuntimeError("the native CPU library is of another release; build the package again")
        self._library, self._shape = library, shape
        self._handle = self._made(library.threads)
        self._run = library.function("encoder_run", c_int32)
        self._run_many = library.function("encoder_run_many", c_int32)
        self._alone: ctypes.Array[c_void_p] | None = None  # an encoder for each thread, which has no other

    def run(self, cells: Sequence[CpuCell]) -> None:
        """Write the rows of cells to their memories: where there are many, each cell by one thread."""
        if len(cells) < _CELLS_A_THREAD * self._library.num_threads:
            for cell in cells:
                if self._run(self._handle, ctypes.byref(cell)):
                    raise MemoryError(f"no room to encode a cell of {cell.count} genes")
            return
        if self._alone is None:
            made = [self._made(self._library.caller_alone) for _ in range(self._library.num_threads)]
            self._alone = (c_void_p * len(made))(*(one.value for one in made))
        array = (CpuCell * len(cells))(*cells)
        if self._run_many(self._alone, array, c_int64(len(cells)), self._library.threads):
            raise MemoryError(f"no room to encode {len(cells)} cells of up to {max(c.count for c in cells)} genes")

    def _made(self, threads: c_void_p) -> c_void_p:
        """Return a new encoder of a crew of threads."""
        made = self._library.function("encoder_new", c_void_p)(ctypes.byref(self._shape), threads)
        if not made:
            raise MemoryError("no room for an encoder")
        handle = c_void_p(made)
        weakref.finalize(self, self._library.function("encoder_free"), handle)
        return handle
