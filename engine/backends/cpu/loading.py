"""The decoder of a bundle, packed, as the native library takes it."""

from __future__ import annotations

import ctypes
from ctypes import c_void_p
from typing import Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.cpu.packing import Packer, forget
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.load import CROSS, DECODER
from cellscribe.engine.bundle.onnx_weights import onnx_weights
from cellscribe.engine.bundle.shapes import CrossShape, DecoderShape
from cellscribe.engine.errors import BundleError
from cellscribe.kernels.cpu_library import CpuLibrary, Kind, PackedWeight, pointer
from cellscribe.kernels.cpu_structs import SILU, CpuCross, CpuDecoder, CpuLayer

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


class NativeDecoder:
    """A struct that points to packed weights, and everything that it points to.

    Attributes
    ----------
    struct
        For the library's functions.
    embedding
        Token table [V, d] as the bundle stores it, mapped.
    bytes_per_step
        Bytes of weights that a step reads.
    """

    def __init__(self, struct: CpuDecoder, embedding: Array, keeps: list[Any]) -> None:
        self.struct, self.embedding, self._keeps = struct, embedding, keeps

    @property
    def memory_kind(self) -> Kind:
        """How memories of cells are kept."""
        return Kind(self.struct.memory_kind)

    @property
    def cache_kind(self) -> Kind:
        """How keys and values of texts are kept."""
        return Kind(self.struct.cache_kind)

    @property
    def bytes_per_step(self) -> int:
        """Bytes of weights that every step reads."""
        return sum(one.bytes for one in self._keeps if isinstance(one, PackedWeight))

    def embed(self, tokens: npt.NDArray[np.int64]) -> Floats:
        """Look tokens [n] up -> [n, d]."""
        return np.ascontiguousarray(self.embedding[tokens], dtype=np.float32)


class DecoderLoader:
    """Packs a decoder layer by layer; the memory of what was packed is given back as it goes."""

    def __init__(
        self,
        packer: Packer,
        shape: DecoderShape,
        cross: CrossShape | None,
        memory_packer: Packer | None,
        memory_kind: Kind = Kind.FLOAT,
    ) -> None:
        self.packer, self.shape, self.cross = packer, shape, cross
        self.memory_packer, self.memory_kind = memory_packer, memory_kind
        self.keeps: list[Any] = [packer.library]

    def load(self) -> NativeDecoder:
        """Return the packed decoder."""
        shape, cross, packer = self.shape, self.cross, self.packer
        layers = (CpuLayer * shape.n_layers)(*(self._layer(i) for i in range(shape.n_layers)))
        embedding = packer.weights["decoder.embedding.weight"]
        cos, sin = self._keep(packer.wide("decoder.cos")), self._keep(packer.wide("decoder.sin"))
        norm, eps = self._norm("decoder.norm")
        is_latent = cross is not None and cross.form == "latent"
        struct = CpuDecoder(
            d_model=shape.d_model,
            n_layers=shape.n_layers,
            n_lower=shape.n_lower,
            n_heads=shape.n_heads,
            n_kv_heads=shape.n_kv_heads,
            d_head=shape.d_head,
            d_ffn=shape.d_ffn,
            vocab_size=shape.vocab_size,
            cross_heads=cross.n_heads if cross else 0,
            cross_kv_heads=cross.n_kv_heads if cross else 0,
            cross_width=cross.d_head if cross else 0,
            d_memory=cross.d_memory if cross else 0,
            is_latent=int(is_latent),
            memory_kind=self.memory_kind,
            normalises_memory=int(is_latent and cross is not None and cross.prepared),
            layers=layers,
            norm=norm,
            head=self._head(embedding),
            cos=pointer(cos),
            sin=pointer(sin),
            eps=eps,
            activation=SILU,
            is_gated=1,
            rotary_width=shape.d_head,
            window_every=1,
            score_scale=shape.d_head**-0.5,
            cross_scale=cross.d_head**-0.5 if cross else 0.0,
            head_scale=1.0,
        )
        self.keeps.append(layers)
        return NativeDecoder(struct, embedding, self.keeps)

    def _layer(self, i: int) -> CpuLayer:
        at, d, shape = f"decoder.layers.{i}", self.shape.d_model, self.shape
        norm1, eps1 = self._norm(f"{at}.norm1")
        norm2, eps2 = self._norm(f"{at}.norm2")
        n = i - shape.n_lower
        return CpuLayer(
            norm1=norm1,
            qkv=self._linear(d, *(f"{at}.attention.{part}.weight" for part in "qkv")),
            out=self._linear(shape.n_heads * shape.d_head, f"{at}.attention.out.weight"),
            norm2=norm2,
            gate_up=self._linear(d, f"{at}.feed_forward.gate.weight", f"{at}.feed_forward.up.weight"),
            down=self._linear(shape.d_ffn, f"{at}.feed_forward.down.weight"),
            eps1=eps1,
            eps2=eps2,
            cross=self._cross(n, self.cross) if n >= 0 and self.cross is not None else CpuCross(),
        )

    def _cross(self, n: int, cross: CrossShape) -> CpuCross:
        at = f"crosses.{n}"
        norm, eps = self._norm(f"{at}.cross.norm")
        gate = self.packer.wide(f"{at}.cross.gate")
        scale = 1.0 if gate is None else float(np.tanh(gate).reshape(-1)[0])
        bias = self.packer.wide(f"{at}.cross.out.bias")
        struct = CpuCross(
            norm=norm,
            q=self._linear(self.shape.d_model, f"{at}.cross.q.weight", bias=self.packer.wide(f"{at}.cross.q.bias")),
            out=self._linear(
                cross.n_heads * cross.d_head, f"{at}.cross.out.weight", bias=None if bias is None else bias * scale
            ),
            out_scale=scale,
            eps=eps,
        )
        if cross.form == "latent":
            self._latent(struct, at, cross)
        else:
            self._materialised(struct, n, cross)
        return struct

    def _latent(self, struct: CpuCross, at: str, cross: CrossShape) -> None:
        for part in ("key", "value"):
            heads = self.packer.weights[f"{at}.{part}"]  # [K, D, m] or [K, m, D]
            packed = [self._keep(self.packer.numbers([np.ascontiguousarray(head)])) for head in heads]
            forget(heads)
            handles = (c_void_p * len(packed))(*(one.handle for one in packed))
            setattr(struct, part, ctypes.cast(self._keep(handles), c_void_p))
        shift = self.packer.wide(f"{at}.shift")
        if shift is not None:
            group = cross.n_heads // cross.n_kv_heads
            whole = np.ascontiguousarray(shift.reshape(cross.n_kv_heads, -1).repeat(group, 0))  # [H, D]
            struct.shift = pointer(self._keep(whole))

    def _materialised(self, struct: CpuCross, n: int, cross: CrossShape) -> None:
        packer, at = self.memory_packer, f"modules_to_trace.{n}"
        assert packer is not None
        for part, field in (("k", "to_keys"), ("v", "to_values")):
            made = packer.linear(cross.d_memory, f"{at}.{part}.weight", bias=packer.wide(f"{at}.{part}.bias"))
            setattr(struct, field, self._keep(made).handle)
        scale, shift = (packer.wide(f"{at}.memory_norm.{part}") for part in ("weight", "bias"))
        if scale is not None and shift is not None:
            struct.memory_norm = pointer(self._keep(np.concatenate((scale, shift))))

    def _head(self, embedding: Array) -> c_void_p:
        packer, d = self.packer, self.shape.d_model
        if packer.weights.get("decoder.head.weight") is not None or packer.weights.quantized("decoder.head.weight"):
            return self._linear(d, "decoder.head.weight")
        if packer.weights.quantized("decoder.embedding.weight") is not None:
            return self._linear(d, "decoder.embedding.weight")
        handle: c_void_p = self._keep(packer.numbers([np.ascontiguousarray(embedding.T)])).handle
        return handle

    def _linear(self, k: int, *names: str, bias: Floats | None = None) -> c_void_p:
        handle: c_void_p = self._keep(self.packer.linear(k, *names, bias=bias)).handle
        return handle

    def _norm(self, name: str) -> tuple[c_void_p, float]:
        weight = self.packer.wide(f"{name}.weight")
        if weight is None:
            return pointer(None), 0.0
        return pointer(self._keep(weight)), self.packer.weights.epsilon(f"{name}.weight")

    def _keep(self, one: Any) -> Any:
        self.keeps.append(one)
        return one


def load_decoder(bundle: Bundle, library: CpuLibrary) -> NativeDecoder:
    """Pack the decoder of a bundle.

    Raises
    ------
    BundleError
        When the bundle has none, or lacks a weight.
    """
    manifest = bundle.manifest
    if manifest.decoder is None:
        raise BundleError(f"the bundle {bundle.name} holds an encoder alone; it embeds cells but writes no text.")
    # Where the weights are rounded, so is the memory, if the machine multiplies bytes at twice the rate or more.
    coarse = manifest.precision in ("int8", "int4")
    brain = coarse and library.instruction_set == "avx512bf16"
    memory_kind = Kind.INT8 if coarse and library.instruction_set != "avx2" else Kind.FLOAT
    cross = manifest.cross_attention
    packer = Packer(onnx_weights(bundle.path(DECODER)), library, brain=brain)
    projected = cross is not None and cross.form == "materialised"
    memory_packer = Packer(onnx_weights(bundle.path(CROSS)), library, brain=brain) if projected else None
    return DecoderLoader(packer, manifest.decoder, cross, memory_packer, memory_kind).load()
