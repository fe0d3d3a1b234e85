"""Reading a BERT of a bundle into packed weights."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_void_p

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.cpu.packing import Packer
from cellscribe.engine.bundle.onnx_weights import OnnxWeights
from cellscribe.engine.bundle.shapes import BertShape
from cellscribe.engine.errors import BundleError
from cellscribe.kernels.cpu_bert import CpuBertLayer, CpuBertShape
from cellscribe.kernels.cpu_library import CpuLibrary, Kind, PackedWeight, pointer

Floats = npt.NDArray[np.float32]


class BertWeights:
    """The weights of one BERT, kept alive for `shape`, whose structs point to them.

    Parameters
    ----------
    sources
        Graphs that hold them, by the names of an exported bundle.
    name
        What the names begin with: ``encoder`` or ``text``.
    library
        What packs them.
    sizes
        Sizes of the BERT.
    d_memory
        Width of what is attended to across, 0 for nothing.
    attention
        What attention multiplies: `Kind.FLOAT` or `Kind.BRAIN`.
    """

    def __init__(
        self,
        sources: Sequence[OnnxWeights],
        name: str,
        library: CpuLibrary,
        sizes: BertShape,
        d_memory: int,
        attention: Kind,
    ) -> None:
        self._sources, self._name, self._library, self._d_memory = sources, name, library, d_memory
        self._kept: list[object] = []
        layers = (CpuBertLayer * sizes.n_layers)(*(self._layer(i, sizes) for i in range(sizes.n_layers)))
        self.shape = CpuBertShape(
            sizes.d_model, sizes.n_layers, sizes.n_heads, sizes.d_ffn, d_memory, attention,
            int(sizes.activation == "gelu"), layers,
        )  # fmt: skip
        self.tokens, self.positions = (
            self._of(at)[at] for at in (f"{name}.embedding.weight", f"{name}.positions.weight")
        )
        self.norm_scale, self.norm_shift = (self.floats(f"{name}.norm.{part}") for part in ("weight", "bias"))
        self.norm_eps = self._of(f"{name}.norm.weight").epsilon(f"{name}.norm.weight")

    def embed(self, tokens: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> Floats:
        """Return token and position embeddings, added and normed, float32 [N, d]."""
        x = self.tokens[tokens].astype(np.float32) + self.positions[places].astype(np.float32)
        x -= x.mean(1, keepdims=True, dtype=np.float64).astype(np.float32)
        deviation = np.sqrt(np.square(x).mean(1, keepdims=True, dtype=np.float64) + self.norm_eps)
        found: Floats = (x / deviation).astype(np.float32) * self.norm_scale + self.norm_shift
        return found

    def floats(self, name: str) -> Floats:
        """Return a tensor in float32."""
        return np.ascontiguousarray(self._of(name)[name], np.float32)

    def linear(self, name: str, k: int) -> PackedWeight:
        """Pack `name`.weight [K, N] with its bias, as it is stored."""
        weight = f"{name}.weight"
        source = next((one for one in self._sources if one.quantized(weight)), None) or self._of(weight)
        packed = Packer(source, self._library).linear(k, weight, bias=self.floats(f"{name}.bias"))
        self._kept.append(packed)
        return packed

    def _layer(self, number: int, sizes: BertShape) -> CpuBertLayer:
        at, d = f"{self._name}.layers.{number}", sizes.d_model
        made = CpuBertLayer(
            *(self.linear(f"{at}.{name}", d).handle for name in ("qkv", "out", "linear1")),
            self.linear(f"{at}.linear2", sizes.d_ffn).handle,
        )
        made.norm1, made.eps1 = self._norm(f"{at}.norm1")
        made.norm2, made.eps2 = self._norm(f"{at}.norm2")
        if self._d_memory:
            made.cross_q = self.linear(f"{at}.cross.q", d).handle
            made.cross_kv = self.linear(f"{at}.cross.kv", self._d_memory).handle
            made.cross_out = self.linear(f"{at}.cross.out", d).handle
            made.cross_norm, made.cross_eps = self._norm(f"{at}.cross.norm")
        return made

    def _norm(self, name: str) -> tuple[c_void_p, float]:
        """Place scale [d] and shift [d] of a LayerNorm; its epsilon beside them."""
        both = np.concatenate([self.floats(f"{name}.{part}") for part in ("weight", "bias")])
        self._kept.append(both)
        return pointer(both), self._of(f"{name}.weight").epsilon(f"{name}.weight")

    def _of(self, name: str) -> OnnxWeights:
        """Return the graph that holds a tensor."""
        found = next((source for source in self._sources if source.get(name) is not None), None)
        if found is None:
            raise BundleError(f"the bundle holds no weight named {name}; export it anew with this release.")
        return found
