"""Packing the weights of one ONNX file of a bundle for the native library."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.bundle.onnx_weights import OnnxWeights, Quantized
from cellscribe.kernels.cpu_library import CpuLibrary, Kind, PackedWeight

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

_BITS = {4: Kind.INT4, 8: Kind.INT8}


class Packer:
    """Packs weights as they are stored: float32, fp16 (multiplied in float32), or blocks of bytes.

    `brain` packs what a quantised bundle stores as fp16 in bf16, where the library multiplies that twice as fast.
    """

    def __init__(self, weights: OnnxWeights, library: CpuLibrary, *, brain: bool = False) -> None:
        self.weights, self.library, self.brain = weights, library, brain

    def linear(self, k: int, *names: str, bias: Floats | None = None) -> PackedWeight:
        """Pack weights [k, n_i] side by side."""
        found = [self.weights.quantized(name) for name in names]
        blocks = [one for one in found if one is not None]
        if len(blocks) == len(names) and len({(one.bits, one.block) for one in blocks}) == 1:
            return self._blocks(k, blocks, bias)
        return self.numbers([self.read(k, name) for name in names], bias)

    def numbers(self, parts: Sequence[Array], bias: Floats | None = None) -> PackedWeight:
        """Pack arrays [K, n_i] side by side, in float32 or as fp16."""
        kind = Kind.FLOAT
        if any(part.dtype == np.float16 for part in parts):
            kind = Kind.BRAIN if self.brain else Kind.HALF
        made = PackedWeight(
            self.library, kind, len(parts[0]), sum(p.shape[1] for p in parts), has_bias=bias is not None
        )
        column = 0
        for part in parts:
            made.put(column, part)
            column += part.shape[1]
            forget(part)
        return _with_bias(made, bias)

    def read(self, k: int, name: str) -> Array:
        """Return a weight [k, N] as numbers; a quantised one as fp16."""
        found = self.weights.quantized(name)
        if found is None:
            return self.weights[name]
        return dequantized(found)[:k].astype(np.float16)

    def wide(self, name: str) -> Floats | None:
        """Return a small tensor in float32, or None where there is none of that name."""
        found = self.weights.get(name)
        return None if found is None else np.ascontiguousarray(found, dtype=np.float32)

    def _blocks(self, k: int, parts: Sequence[Quantized], bias: Floats | None) -> PackedWeight:
        total = sum(len(part.scales) for part in parts)
        kind, group = _BITS[parts[0].bits], parts[0].block
        made = PackedWeight(self.library, kind, k, total, has_bias=bias is not None, group=group)
        column = 0
        for part in parts:
            made.put_blocks(column, part.packed, part.scales)
            column += len(part.scales)
            forget(part.packed)
        return _with_bias(made, bias)


def dequantized(weight: Quantized) -> Floats:
    """Return the numbers [K, N] of a quantised weight, K padded to whole blocks."""
    codes = weight.packed
    if weight.bits == 4:
        codes = np.stack((codes & 15, codes >> 4), -1).reshape(*codes.shape[:-1], weight.block)
    numbers = (codes.astype(np.float32) - (8 if weight.bits == 4 else 128)) * weight.scales[..., None]
    return numbers.reshape(len(weight.scales), -1).T


def forget(array: Array) -> None:
    """Give the pages of a mapped weight back: it was copied, and would count as memory of this process."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


def _with_bias(made: PackedWeight, bias: Floats | None) -> PackedWeight:
    if bias is not None:
        made.put_bias(0, bias)
    return made
