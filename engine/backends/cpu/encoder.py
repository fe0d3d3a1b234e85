"""The encoder in the native CPU library: genes and values in, memory and cell embedding out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.base import Array, Encoded, Floats
from cellscribe.engine.backends.cpu.encoder_weights import EncoderWeights
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.load import ENCODER
from cellscribe.engine.bundle.onnx_weights import onnx_weights
from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.errors import InputError
from cellscribe.kernels.cpu_encoder import CpuCell, NativeEncoder
from cellscribe.kernels.cpu_library import CpuLibrary, Kind, pointer

Codes = npt.NDArray[np.int64]
Arrays = tuple[npt.NDArray[np.generic] | None, ...]


class CpuEncoder:
    """The scGPT encoder (Cui et al., 2024) of a bundle in the native library.

    Weights are multiplied as the bundle stores them and sums are float32; attention over a bundle of bytes runs in bf16
    where the machine multiplies it. A cell's memory does not depend on the threads or on the other cells.
    """

    def __init__(self, bundle: Bundle, library: CpuLibrary) -> None:
        manifest = bundle.manifest
        self.dtype = np.dtype(np.float16 if manifest.precision == "fp16" else np.float32)
        self._width, self._style = manifest.encoder_shape.d_model, manifest.cell_input.value_style
        coarse = manifest.precision in ("int8", "int4") and library.instruction_set == "avx512bf16"
        source, attention = onnx_weights(bundle.path(ENCODER)), Kind.BRAIN if coarse else Kind.FLOAT
        self._weights = EncoderWeights(source, library, manifest.encoder_shape, self._style, attention)
        self._native = NativeEncoder(library, self._weights.shape)

    def encode(self, batch: TokenBatch) -> Encoded:
        """Encode cells; rows of the memory whose mask is false are zero."""
        memory: Array = np.zeros((*batch.genes.shape, self._width), self.dtype)
        given = [one for i in range(batch.n_cells) if (one := self._given(batch, i, memory[i])) is not None]
        self._native.run([cell for cell, _ in given])
        cell: Floats = memory[:, 0].astype(np.float32)
        return Encoded(memory, cell)

    def _given(self, batch: TokenBatch, at: int, memory: Array) -> tuple[CpuCell, Arrays] | None:
        """Return the real tokens of one cell for its memory [S, d], and the arrays that they lie in; None for none."""
        rows: Codes = np.flatnonzero(batch.mask[at]).astype(np.int64)
        if not len(rows):
            return None
        genes: Codes = batch.genes[at, rows].astype(np.int64)
        if genes.min() < 0 or genes.max() >= self._weights.num_genes:
            raise InputError(f"cell {batch.cell_ids[at]} has a gene that the bundle's encoder does not know.")
        codes, values = self._values(batch, at, rows)
        arrays = genes, codes, values, rows, memory
        return CpuCell(len(rows), len(values), *map(pointer, arrays), self.dtype == np.float16), arrays

    def _values(self, batch: TokenBatch, at: int, rows: Codes) -> tuple[Codes | None, Floats]:
        """Return the codes and values that the value style reads, see cpu_encoder.h."""
        given: Floats = batch.values[at, rows].astype(np.float32)
        if self._style == "scaling":
            return None, given
        if self._style == "continuous":
            values, codes = np.unique(given, return_inverse=True)
            return codes.astype(np.int64, copy=False), values
        if not (given < self._weights.num_values).all():  # nor what is not a number
            raise InputError(f"cell {batch.cell_ids[at]} has a value that the bundle's encoder does not know.")
        return np.maximum(given, 0).astype(np.int64), given
