"""Twins in Python of the structs in cpu/include/cellscribe/cpu_bert.h, and the layers behind them."""

from __future__ import annotations

import ctypes
import weakref
from ctypes import c_float, c_int32, c_int64, c_void_p

import numpy as np
import numpy.typing as npt

from cellscribe.kernels.cpu_library import CpuLibrary, pointer

LATE, EARLY, FIRST = 1, 2, 4  # flags of a run

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class CpuBertLayer(ctypes.Structure):
    """Weights of one layer."""

    _fields_ = (
        ("qkv", c_void_p),
        ("out", c_void_p),
        ("linear1", c_void_p),
        ("linear2", c_void_p),
        ("cross_q", c_void_p),
        ("cross_kv", c_void_p),
        ("cross_out", c_void_p),
        ("norm1", c_void_p),
        ("norm2", c_void_p),
        ("cross_norm", c_void_p),
        ("eps1", c_float),
        ("eps2", c_float),
        ("cross_eps", c_float),
    )


class CpuBertShape(ctypes.Structure):
    """Sizes and weights."""

    _fields_ = (
        ("d_model", c_int64),
        ("n_layers", c_int64),
        ("n_heads", c_int64),
        ("d_ffn", c_int64),
        ("d_memory", c_int64),
        ("attention_kind", c_int64),
        ("is_gelu", c_int64),
        ("layers", ctypes.POINTER(CpuBertLayer)),
    )


class CpuBertRun(ctypes.Structure):
    """Sequences one after the other."""

    _fields_ = (
        ("num_sequences", c_int64),
        ("starts", c_void_p),
        ("x", c_void_p),
        ("memory", c_void_p),
        ("flags", c_int64),
        ("out", c_void_p),
    )


def fingerprint() -> int:
    """Return the number that a library with these structs gives; see cpu/bert_api.h."""
    layer, shape, run = map(ctypes.sizeof, (CpuBertLayer, CpuBertShape, CpuBertRun))
    return layer * 1009 * 1009 + shape * 1009 + run


class NativeMemory:
    """Keys and values of one cell for every layer; see :meth:`NativeBert.remember`."""

    def __init__(self, library: CpuLibrary, handle: c_void_p, most: int) -> None:
        self.handle, self.most = handle, most
        self._free = weakref.finalize(self, library.function("bert_memory_free"), handle)


class NativeBert:
    """BERT layers of the native library; the caller keeps alive what `shape` points to.

    Raises
    ------
    RuntimeError
        When the library is of another release.
    MemoryError
        When there is no room for it.
    """

    def __init__(self, library: CpuLibrary, shape: CpuBertShape) -> None:
        if library.function("bert_fingerprint", c_int64)() != fingerprint():
            raise RuntimeError("the native CPU library is of another release; build the package again")
        made = library.function("bert_new", c_void_p)(ctypes.byref(shape), library.threads)
        if not made:
            raise MemoryError("no room for an encoder")
        self._library, self._shape, self._handle = library, shape, c_void_p(made)
        self._run = library.function("bert_run", c_int32)
        self._remember = library.function("bert_remember", c_int32)
        self._free = weakref.finalize(self, library.function("bert_free"), self._handle)

    def run(self, x: Floats, starts: Ints, flags: int = 0, memory: NativeMemory | None = None) -> Floats:
        """Run the layers.

        Parameters
        ----------
        x
            Embedded tokens float32 [N, d] of sequences one after the other; with `LATE` what :data:`EARLY` gave.
        starts
            Where each sequence starts, int64 [Q + 1], none empty.
        memory
            The cell that is attended to across, of this object; None for nothing.

        Returns
        -------
        float32 [N, d], or with `FIRST` [Q, d], the states of first tokens.
        """
        x, starts = np.ascontiguousarray(x, np.float32), np.ascontiguousarray(starts, np.int64)
        if (
            len(starts) < 2
            or starts[0] != 0
            or (np.diff(starts) < 1).any()
            or x.shape
            != (
                starts[-1],
                self._shape.d_model,
            )
        ):
            raise ValueError(f"states {x.shape} are not those of sequences that start at {starts[:4]}...")
        out = np.empty((len(starts) - 1 if flags & FIRST else len(x), self._shape.d_model), np.float32)
        handle = None if memory is None else memory.handle
        call = CpuBertRun(len(starts) - 1, pointer(starts), pointer(x), handle, flags, pointer(out))
        if self._run(self._handle, ctypes.byref(call)):
            raise MemoryError(f"no room for {len(x)} tokens")
        return out

    def remember(self, states: Floats, memory: NativeMemory | None = None) -> NativeMemory:
        """Return the keys and values of a cell's states float32 [S, m]; in the room of another one where they fit."""
        states = np.ascontiguousarray(states, np.float32)
        if states.ndim != 2 or not len(states) or states.shape[1] != self._shape.d_memory:
            raise ValueError(f"states {states.shape} are not those of a cell, [S, {self._shape.d_memory}]")
        if memory is None or memory.most < len(states):
            made = self._library.function("bert_memory_new", c_void_p)(self._handle, c_int64(len(states)))
            if not made:
                raise MemoryError(f"no room for a cell of {len(states)} genes")
            memory = NativeMemory(self._library, c_void_p(made), len(states))
        if self._remember(self._handle, memory.handle, pointer(states), c_int64(len(states))):
            raise MemoryError(f"no room for a cell of {len(states)} genes")
        return memory
