"""New tokens through the decoder of the native library: one row a token, as many rows of a slot as are new."""

from __future__ import annotations

import ctypes
import weakref
from ctypes import c_int32, c_int64, c_void_p
from typing import Any

import numpy as np

from cellscribe.engine.backends.base import Floats, Ints
from cellscribe.engine.backends.cpu.loading import NativeDecoder
from cellscribe.engine.bundle.shapes import CrossShape, DecoderShape
from cellscribe.engine.errors import RoomError
from cellscribe.kernels.cpu_library import CpuLibrary, pointer
from cellscribe.kernels.cpu_structs import CpuCall


class Passes:
    """Runs new tokens through the decoder; one row a token, as many rows of a slot as are new."""

    def __init__(
        self,
        library: CpuLibrary,
        decoder: NativeDecoder,
        shape: DecoderShape,
        cross: CrossShape | None,
        *,
        num_slots: int,
        capacity: int,
        num_genes: int,
    ) -> None:
        self.library, self.decoder, self.shape, self.cross = library, decoder, shape, cross
        self.num_slots, self.num_genes = num_slots, num_genes
        made = library.function("slots_new", c_void_p)(
            ctypes.byref(decoder.struct),
            library.threads,
            c_int64(num_slots),
            c_int64(capacity),
            c_int64(max(num_genes, 1)),
        )
        if not made:
            raise RoomError(f"the CPU has no room for {num_slots} slots; choose a smaller --batch-size (batch_size).")
        self._handle = c_void_p(made)
        self._free = weakref.finalize(self, library.function("slots_free"), self._handle)
        self._run = library.function("slots_run", c_int32)

    @property
    def bytes(self) -> int:
        """Bytes of caches and memories."""
        return int(self.library.function("slots_bytes", c_int64)(self._handle))

    def fill(self, slot: int, memory: Floats, columns: Ints) -> None:
        """Give a slot a cell: memory [n, m] of the genes at `columns` [n]."""
        code = self.library.function("slots_fill", c_int32)(
            self._handle, c_int64(slot), pointer(memory), pointer(columns), c_int64(len(columns))
        )
        self._check(code)

    def write(self, slot: int, layer: int, keys: Floats, values: Floats) -> None:
        """Put keys and values [K, P, D] of the first positions of a layer into a slot."""
        self.library.function("slots_write")(
            self._handle, c_int64(slot), c_int64(layer), pointer(keys), pointer(values), c_int64(keys.shape[1])
        )

    def copy(self, source: int, target: int, layers: int, length: int) -> None:
        """Copy the first `length` keys and values of the first layers from slot to slot."""
        numbers = (c_int64(one) for one in (source, target, layers, length))
        self.library.function("slots_copy")(self._handle, *numbers)

    def run(
        self,
        x: Floats,
        slots: Ints,
        positions: Ints,
        *,
        layers: tuple[int, int],
        chosen: Ints | None = None,
        keep_attention: bool = False,
    ) -> tuple[Floats, Floats, Floats | None]:
        """Run rows x [n, d] (overwritten) through layers first..last-1.

        Returns
        -------
        Logits [c, V], evidence [c, S] and attention [c, L, H, S] of the `chosen` rows [c]; empty without them.
        """
        count = 0 if chosen is None else len(chosen)
        logits = np.empty((count, self.shape.vocab_size), np.float32)
        evidence = np.zeros((count, self.num_genes), np.float32)
        attention = None
        if keep_attention and self.cross is not None:
            attention = np.empty((count, self.cross.n_layers, self.cross.n_heads, self.num_genes), np.float32)
        call = CpuCall(
            rows=len(x),
            outputs=count,
            slots=pointer(slots),
            positions=pointer(positions),
            chosen=pointer(chosen),
            x=pointer(x),
            first_layer=layers[0],
            last_layer=layers[1],
            logits=pointer(logits if count else None),
            evidence=pointer(evidence if count and self.cross is not None else None),
            attention=pointer(attention if count else None),
            genes=self.num_genes,
        )
        self._check(self._run(self._handle, ctypes.byref(call)))
        return logits, evidence, attention

    def states(self, x: Floats, slots: Ints, positions: Ints) -> Floats:
        """Run rows x [n, d] (overwritten) through all layers; their last states [n, d], normed."""
        found, chosen = np.empty_like(x), np.arange(len(x))
        call = CpuCall(
            rows=len(x),
            outputs=len(x),
            slots=pointer(slots),
            positions=pointer(positions),
            chosen=pointer(chosen),
            x=pointer(x),
            first_layer=0,
            last_layer=self.shape.n_layers,
            states=pointer(found),
        )
        self._check(self._run(self._handle, ctypes.byref(call)))
        return found

    def _check(self, code: Any) -> None:
        if code:
            raise RoomError("the CPU ran out of memory; choose a smaller --batch-size (batch_size).")
