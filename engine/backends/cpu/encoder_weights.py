"""Reading the encoder of a bundle into packed weights."""

from __future__ import annotations

from ctypes import c_void_p
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cellscribe.engine.bundle.onnx_weights import OnnxWeights
from cellscribe.kernels.cpu_encoder import CpuEncoderLayer, CpuTable
from cellscribe.kernels.cpu_library import CpuLibrary, Kind, PackedWeight, pointer

Array = npt.NDArray[np.generic]
_QUANTIZED = {8: Kind.INT8, 4: Kind.INT4}


@dataclass
class EncoderWeights:
    """Weights of one encoder, kept alive for the structs that point to them."""

    source: OnnxWeights
    library: CpuLibrary
    _kept: list[object] = field(default_factory=list)

    def linear(self, name: str) -> c_void_p:
        """Pack `name`.weight [K, N] with its bias: bytes and halves as they are stored, numbers in float32."""
        quantized = self.source.quantized(f"{name}.weight")
        if quantized is None:
            weight = self.source[f"{name}.weight"]
            kind = Kind.HALF if weight.dtype == np.float16 else Kind.FLOAT
            packed = PackedWeight(self.library, kind, *weight.shape, has_bias=True)
            packed.put(0, weight)
        else:
            bias = self.source[f"{name}.bias"]
            kind, blocks = _QUANTIZED[quantized.bits], quantized.scales.shape[1]
            packed = PackedWeight(self.library, kind, blocks * 32, len(bias), has_bias=True)
            packed.put_blocks(0, quantized.packed, quantized.scales)
        packed.put_bias(0, self.source[f"{name}.bias"])
        self._kept.append(packed)
        return packed.handle

    def floats(self, *names: str) -> c_void_p:
        """Place numbers one after the other in float32."""
        return self._keep(np.concatenate([np.ravel(self.source[name]).astype(np.float32) for name in names]))

    def norm(self, name: str) -> tuple[c_void_p, float]:
        """Place scale [d] and shift [d] of a LayerNorm; its epsilon beside them."""
        return self.floats(f"{name}.weight", f"{name}.bias"), self.source.epsilon(f"{name}.weight")

    def table(self, name: str) -> tuple[CpuTable, int]:
        """Map a token table with its norm, and count its rows; it stays in the bundle's file."""
        numbers = self.source[f"{name}.embedding.weight"]
        if numbers.dtype != np.float16:
            numbers = numbers.astype(np.float32, copy=False)
        norm, eps = self.norm(f"{name}.norm")
        return CpuTable(self._keep(numbers), norm, numbers.dtype == np.float16, eps), len(numbers)

    def layer(self, number: int) -> CpuEncoderLayer:
        """Place layer `number`."""
        at = f"encoder.layers.{number}"
        norm1, eps1 = self.norm(f"{at}.norm1")
        norm2, eps2 = self.norm(f"{at}.norm2")
        linears = [self.linear(f"{at}.{name}") for name in ("qkv", "out", "linear1", "linear2")]
        return CpuEncoderLayer(*linears, norm1, norm2, eps1, eps2)

    def _keep(self, numbers: Array) -> c_void_p:
        kept = np.require(numbers, requirements="CA")
        self._kept.append(kept)
        return pointer(kept)
