"""The encoder in the native CPU library: genes and values in, memory and cell embedding out."""

from __future__ import annotations

import numpy as np

from cellscribe.engine.backends.base import Array, Encoded, Floats
from cellscribe.engine.backends.cpu.encoder_weights import EncoderWeights
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.load import ENCODER
from cellscribe.engine.bundle.onnx_weights import onnx_weights
from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.errors import InputError
from cellscribe.kernels.cpu_encoder import (
    CATEGORY,
    CONTINUOUS,
    SCALING,
    CpuCell,
    CpuEncoderLayer,
    CpuEncoderShape,
    NativeEncoder,
)
from cellscribe.kernels.cpu_library import CpuLibrary, Kind, pointer

_MAX_VALUE = 512.0  # values beyond it are clipped before the value MLP, as scGPT does
_STYLES = {"continuous": CONTINUOUS, "category": CATEGORY, "scaling": SCALING}


class CpuEncoder:
    """The scGPT encoder (Cui et al., 2024) of a bundle in the native library.

    Weights are multiplied as the bundle stores them. Sums are float32; a quantised bundle's attention runs in bf16 where
    the machine multiplies it. A cell's memory does not depend on the threads or on the other cells.
    """

    def __init__(self, bundle: Bundle, library: CpuLibrary) -> None:
        self._sizes, precision = bundle.manifest.encoder, bundle.manifest.precision
        self._style = _STYLES[bundle.manifest.cells.value_style]
        self.dtype = np.dtype(np.float16 if precision == "fp16" else np.float32)
        coarse = precision in ("int8", "int4") and library.instruction_set == "avx512bf16"
        self._weights = EncoderWeights(onnx_weights(bundle.path(ENCODER)), library)
        shape = self._shape(self._weights, Kind.BRAIN if coarse else Kind.FLOAT)
        self._native = NativeEncoder(library, shape)

    def _shape(self, weights: EncoderWeights, attention: Kind) -> CpuEncoderShape:
        sizes = self._sizes
        layers = [weights.layer(i) for i in range(sizes.n_layers)]
        self._layers = (CpuEncoderLayer * sizes.n_layers)(*layers)
        genes, self._num_genes = weights.table("encoder.genes")
        shape = CpuEncoderShape(
            sizes.d_model, sizes.n_layers, sizes.n_heads, sizes.d_ffn, attention, self._style, genes
        )
        shape.layers = self._layers
        if self._style == CATEGORY:
            shape.values, self._num_values = weights.table("encoder.values")
        elif self._style == CONTINUOUS:
            at = "encoder.values"
            shape.expand = weights.floats(f"{at}.linear1.weight", f"{at}.linear1.bias")
            shape.value_linear = weights.linear(f"{at}.linear2")
            shape.value_norm, shape.value_eps = weights.norm(f"{at}.norm")
            shape.max_value = _MAX_VALUE
        return shape

    def encode(self, batch: TokenBatch) -> Encoded:
        """Encode cells one after the other; rows of the memory where the mask is false are zero."""
        count, length = batch.genes.shape
        memory: Array = np.zeros((count, length, self._sizes.d_model), self.dtype)
        for i in range(count):
            self._encode(batch, i, memory[i])
        cell: Floats = memory[:, 0].astype(np.float32)
        return Encoded(memory, cell)

    def _encode(self, batch: TokenBatch, cell: int, memory: Array) -> None:
        rows = np.flatnonzero(batch.mask[cell])
        if not len(rows):
            return
        genes = batch.genes[cell, rows].astype(np.int64)
        if genes.min() < 0 or genes.max() >= self._num_genes:
            raise InputError(f"cell {batch.cell_ids[cell]} has a gene that the bundle's vocabulary lacks.")
        values, codes = self._values(batch, cell, rows)
        self._native.run(
            CpuCell(
                len(rows),
                len(values),
                pointer(genes),
                pointer(codes),
                pointer(values),
                pointer(rows),
                pointer(memory),
                self.dtype == np.float16,
            )
        )

    def _values(self, batch: TokenBatch, cell: int, rows: Array) -> tuple[Floats, Array]:
        """Return what the value style reads, see cpu_encoder.h."""
        given = batch.values[cell, rows].astype(np.float32)
        if self._style == CONTINUOUS:
            return np.unique(given, return_inverse=True)
        if self._style == SCALING:
            return given, np.zeros(0, np.int64)
        codes = np.maximum(given, 0).astype(np.int64)  # as the exported graph does
        if codes.max() >= self._num_values:
            raise InputError(f"cell {batch.cell_ids[cell]} has a value beyond the {self._num_values} of the bundle.")
        return given, codes
