"""The T5 of a bundle that follows instructions, packed, as the native library takes it: encoder and decoder."""

from __future__ import annotations

from ctypes import c_void_p
from typing import Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.contract import differs
from cellscribe.engine.backends.cpu.loading import NativeDecoder
from cellscribe.engine.backends.cpu.packing import Packer
from cellscribe.engine.backends.instruct import instruct_shapes
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.load import CROSS, DECODER, ENCODER
from cellscribe.engine.bundle.onnx_weights import onnx_weights
from cellscribe.kernels.cpu_library import CpuLibrary, Kind, pointer
from cellscribe.kernels.cpu_structs import GELU_TANH, RELU, CpuCross, CpuDecoder, CpuLayer

_ACTIVATIONS = {"relu": RELU, "gelu_tanh": GELU_TANH}


def load_t5_encoder(bundle: Bundle, library: CpuLibrary) -> NativeDecoder:
    """Pack the encoder of a bundle; errors as :func:`load_t5_decoder`."""
    return _Loader(bundle, library, ENCODER, None).load("encoder")


def load_t5_decoder(bundle: Bundle, library: CpuLibrary) -> NativeDecoder:
    """Pack the decoder of a bundle, with what it attends to the encoder's states by.

    Raises
    ------
    BundleError
        When the bundle follows no instructions, lacks a weight, or has one of another size than its manifest says.
    """
    return _Loader(bundle, library, DECODER, CROSS).load("decoder")


class _Loader:
    """Packs one stack, layer by layer."""

    def __init__(self, bundle: Bundle, library: CpuLibrary, graph: str, memory_graph: str | None) -> None:
        coarse = bundle.manifest.precision in ("int8", "int4")
        brain = coarse and library.instruction_set == "avx512bf16"
        self._bundle, self._shape = bundle, instruct_shapes(bundle).t5
        self._packer = Packer(onnx_weights(bundle.path(graph)), library, brain=brain)
        self._memory: Packer | None = None
        if memory_graph is not None:
            self._memory = Packer(onnx_weights(bundle.path(memory_graph)), library, brain=brain)
        self._kind = Kind.BRAIN if brain else Kind.FLOAT
        self._keeps: list[Any] = [library]

    def load(self, name: str) -> NativeDecoder:
        """Return the packed stack of a name."""
        t, at, sees_all = self._shape, f"t5.{name}", self._memory is None
        n_layers = t.n_encoder_layers if sees_all else t.n_layers
        layers = (CpuLayer * n_layers)(*(self._layer(f"{at}.layers.{i}", i) for i in range(n_layers)))
        embedding = self._packer.weights["t5.embedding.weight"]
        self._expect("t5.embedding.weight", embedding, (t.vocab_size, t.d_model))
        struct = CpuDecoder(
            d_model=t.d_model,
            n_layers=n_layers,
            n_lower=n_layers if sees_all else 0,
            n_heads=t.n_heads,
            n_kv_heads=t.n_heads,
            d_head=t.d_head,
            d_ffn=t.d_ffn,
            vocab_size=0 if sees_all else t.vocab_size,
            cross_heads=0 if sees_all else t.n_heads,
            cross_kv_heads=0 if sees_all else t.n_heads,
            cross_width=0 if sees_all else t.d_head,
            d_memory=0 if sees_all else t.d_model,
            memory_kind=self._kind,
            layers=layers,
            norm=self._norm(f"{at}.norm"),
            head=pointer(None) if sees_all else self._head(embedding),
            eps=t.norm_eps,
            activation=_ACTIVATIONS[t.activation],
            is_gated=int(t.is_gated),
            window_every=1,
            score_scale=1.0,
            cross_scale=1.0,
            head_scale=t.head_scale,
            sees_all=int(sees_all),
            bias=self._bias(f"{at}.bias.table", 2 * t.reach + 1 if sees_all else t.reach + 1),
            bias_reach=t.reach,
        )
        self._keeps.append(layers)
        return NativeDecoder(struct, embedding, self._keeps)

    def _layer(self, at: str, number: int) -> CpuLayer:
        t = self._shape
        d, inner = t.d_model, t.n_heads * t.d_head
        first = ("gate", "up") if t.is_gated else ("up",)
        return CpuLayer(
            norm1=self._norm(f"{at}.norm1"),
            qkv=self._linear(d, inner, *(f"{at}.attention.{part}.weight" for part in "qkv")),
            out=self._linear(inner, d, f"{at}.attention.out.weight"),
            norm2=self._norm(f"{at}.norm2"),
            gate_up=self._linear(d, t.d_ffn, *(f"{at}.feed_forward.{part}.weight" for part in first)),
            down=self._linear(t.d_ffn, d, f"{at}.feed_forward.down.weight"),
            eps1=t.norm_eps,
            eps2=t.norm_eps,
            cross=CpuCross() if self._memory is None else self._cross(at, number, self._memory),
        )

    def _cross(self, at: str, number: int, memory: Packer) -> CpuCross:
        d, inner = self._shape.d_model, self._shape.n_heads * self._shape.d_head
        to_keys, to_values = (
            self._linear(d, inner, f"layers.{number}.{part}.weight", packer=memory) for part in ("k", "v")
        )
        return CpuCross(
            norm=self._norm(f"{at}.norm_cross"),
            q=self._linear(d, inner, f"{at}.cross.q.weight"),
            out=self._linear(inner, d, f"{at}.cross.out.weight"),
            to_keys=to_keys,
            to_values=to_values,
            out_scale=1.0,
            eps=self._shape.norm_eps,
        )

    def _linear(self, k: int, n: int, *names: str, packer: Packer | None = None) -> c_void_p:
        """Pack weights [k, n] side by side."""
        packer = packer or self._packer
        for name in names:
            quantized = packer.weights.quantized(name)
            if quantized is None:
                self._expect(name, packer.weights[name], (k, n))
            elif not quantized.fits(k, n):
                raise differs(self._bundle, f"{name} {[k, n]}", f"{list(quantized.scales.shape)} blocks")
        handle: c_void_p = self._keep(packer.linear(k, *names)).handle
        return handle

    def _head(self, embedding: Any) -> c_void_p:
        weights, d, n = self._packer.weights, self._shape.d_model, self._shape.vocab_size
        if weights.get("t5.head.weight") is not None or weights.quantized("t5.head.weight") is not None:
            return self._linear(d, n, "t5.head.weight")
        if weights.quantized("t5.embedding.weight") is not None:
            return self._linear(d, n, "t5.embedding.weight")
        handle: c_void_p = self._keep(self._packer.numbers([np.ascontiguousarray(embedding.T)])).handle
        return handle

    def _bias(self, name: str, rows: int) -> c_void_p:
        """Place the table [rows, H] by head."""
        found = self._packer.wide(name)
        self._expect(name, found, (rows, self._shape.n_heads))
        assert found is not None
        return pointer(self._keep(np.ascontiguousarray(found.T)))

    def _norm(self, name: str) -> c_void_p:
        found = self._packer.wide(f"{name}.weight")
        self._expect(f"{name}.weight", found, (self._shape.d_model,))
        return pointer(self._keep(found))

    def _expect(self, name: str, found: npt.NDArray[Any] | None, shape: tuple[int, ...]) -> None:
        if found is None or found.shape != shape:
            raise differs(self._bundle, f"{name} {list(shape)}", f"{None if found is None else list(found.shape)}")

    def _keep(self, one: Any) -> Any:
        self._keeps.append(one)
        return one


__all__ = ["load_t5_decoder", "load_t5_encoder"]
