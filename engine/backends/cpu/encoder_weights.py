"""Reading an encoder into packed weights."""

from __future__ import annotations

from ctypes import c_void_p

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.cpu.packing import Packer
from cellscribe.engine.bundle.onnx_weights import OnnxWeights
from cellscribe.engine.bundle.shapes import EncoderShape
from cellscribe.kernels.cpu_encoder import (
    CATEGORY,
    CONTINUOUS,
    SCALING,
    CpuEncoderLayer,
    CpuEncoderShape,
    CpuTable,
)
from cellscribe.kernels.cpu_library import CpuLibrary, Kind, pointer

STYLES = {"continuous": CONTINUOUS, "category": CATEGORY, "scaling": SCALING}
_MAX_VALUE = 512.0  # values beyond it are clipped before the value MLP, as scGPT does


class EncoderWeights:
    """The weights of one encoder, kept alive for `shape`, whose structs point to them.

    Parameters
    ----------
    source
        Weights by the names of an exported encoder.
    library
        What packs them.
    sizes
        Sizes of the encoder.
    style
        One of :data:`STYLES`.
    attention
        What attention multiplies: `Kind.FLOAT` or `Kind.BRAIN`.
    """

    def __init__(
        self, source: OnnxWeights, library: CpuLibrary, sizes: EncoderShape, style: str, attention: Kind
    ) -> None:
        self._source, self._library = source, library
        self._kept: list[object] = []
        self.num_genes = len(source["encoder.genes.embedding.weight"])
        self.num_values = 0
        layers = (CpuEncoderLayer * sizes.n_layers)(*(self._layer(i, sizes) for i in range(sizes.n_layers)))
        self.shape = CpuEncoderShape(
            sizes.d_model, sizes.n_layers, sizes.n_heads, sizes.d_ffn, attention, STYLES[style], layers=layers
        )
        self.shape.genes = self._table("encoder.genes")
        if style == "category":
            self.num_values = len(source["encoder.values.embedding.weight"])
            self.shape.values = self._table("encoder.values")
        elif style == "continuous":
            at = "encoder.values"
            self.shape.expand = self._floats(f"{at}.linear1.weight", f"{at}.linear1.bias")
            self.shape.value_linear = self._linear(f"{at}.linear2", sizes.d_model)
            self.shape.value_norm, self.shape.value_eps = self._norm(f"{at}.norm")
            self.shape.max_value = _MAX_VALUE

    def _layer(self, number: int, sizes: EncoderShape) -> CpuEncoderLayer:
        at, d = f"encoder.layers.{number}", sizes.d_model
        linears = [self._linear(f"{at}.{name}", d) for name in ("qkv", "out", "linear1")]
        linears.append(self._linear(f"{at}.linear2", sizes.d_ffn))
        norm1, eps1 = self._norm(f"{at}.norm1")
        norm2, eps2 = self._norm(f"{at}.norm2")
        return CpuEncoderLayer(*linears, norm1, norm2, eps1, eps2)

    def _linear(self, name: str, k: int) -> c_void_p:
        """Pack `name`.weight [K, N] with its bias, as it is stored."""
        bias = np.ascontiguousarray(self._source[f"{name}.bias"], np.float32)
        packed = Packer(self._source, self._library).linear(k, f"{name}.weight", bias=bias)
        self._kept.append(packed)
        return packed.handle

    def _floats(self, *names: str) -> c_void_p:
        """Place numbers in float32, one array after the other."""
        return self._keep(np.concatenate([np.ravel(self._source[name]).astype(np.float32) for name in names]))

    def _norm(self, name: str) -> tuple[c_void_p, float]:
        """Place scale [d] and shift [d] of a LayerNorm; its epsilon beside them."""
        return self._floats(f"{name}.weight", f"{name}.bias"), self._source.epsilon(f"{name}.weight")

    def _table(self, name: str) -> CpuTable:
        """Point to a token table, which stays mapped from the bundle's file, and place its norm."""
        numbers = self._source[f"{name}.embedding.weight"]
        is_half = numbers.dtype == np.float16
        norm, eps = self._norm(f"{name}.norm")
        return CpuTable(self._keep(numbers if is_half else numbers.astype(np.float32, copy=False)), norm, is_half, eps)

    def _keep(self, numbers: npt.NDArray[np.generic]) -> c_void_p:
        kept = np.require(numbers, requirements=["C", "A"])
        self._kept.append(kept)
        return pointer(kept)
