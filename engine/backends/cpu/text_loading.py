"""The decoder of a family without an encoder, packed, as the native library takes it."""

from __future__ import annotations

from ctypes import c_void_p
from typing import Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.contract import differs
from cellscribe.engine.backends.cpu.loading import NativeDecoder
from cellscribe.engine.backends.cpu.packing import Packer
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.load import DECODER
from cellscribe.engine.bundle.onnx_weights import onnx_weights
from cellscribe.engine.bundle.shapes import DecoderShape, DecoderStyle
from cellscribe.engine.errors import BundleError
from cellscribe.kernels.cpu_library import CpuLibrary, Kind, pointer
from cellscribe.kernels.cpu_structs import GELU, GELU_TANH, SILU, CpuCross, CpuDecoder, CpuLayer

Floats = npt.NDArray[np.float32]

_ACTIVATIONS = {"silu": SILU, "gelu": GELU, "gelu_tanh": GELU_TANH}


class NativeTextDecoder(NativeDecoder):
    """A packed decoder with what is done to tokens before its first layer."""

    def __init__(
        self, struct: CpuDecoder, embedding: Any, keeps: list[Any], scale: float, places: Floats | None
    ) -> None:
        super().__init__(struct, embedding, keeps)
        self._scale, self._places = np.float32(scale), places

    def embed_at(self, tokens: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]) -> Floats:
        """Look tokens [n] at positions [n] up -> [n, d]."""
        x = self.embed(tokens)
        if self._scale != 1:
            x *= self._scale
        return x if self._places is None else x + self._places[positions]


def load_text_decoder(bundle: Bundle, library: CpuLibrary) -> NativeTextDecoder:
    """Pack the decoder of a bundle.

    Raises
    ------
    BundleError
        When the bundle reads no sentences, lacks a weight, or has one of another size than its manifest says.
    """
    manifest = bundle.manifest
    if manifest.decoder is None or manifest.style is None:
        raise BundleError(f"the bundle {bundle.name} reads no sentences; choose one of the family c2s.")
    coarse = manifest.precision in ("int8", "int4")
    brain = coarse and library.instruction_set == "avx512bf16"
    packer = Packer(onnx_weights(bundle.path(DECODER)), library, brain=brain)
    # Where the weights are rounded, so are keys and values, if the machine multiplies bytes at twice the rate or more.
    cache_kind = Kind.INT8 if coarse and library.instruction_set != "avx2" else Kind.FLOAT
    return _Loader(bundle, packer, manifest.decoder, manifest.style, cache_kind).load()


class _Loader:
    """Packs layer by layer."""

    def __init__(
        self, bundle: Bundle, packer: Packer, shape: DecoderShape, style: DecoderStyle, cache_kind: Kind
    ) -> None:
        self._bundle, self._packer, self._shape, self._style = bundle, packer, shape, style
        self._cache_kind = cache_kind
        self._keeps: list[Any] = [packer.library]

    def load(self) -> NativeTextDecoder:
        """Return the packed decoder."""
        shape, style, packer = self._shape, self._style, self._packer
        _check(self._bundle, shape, style)
        layers = (CpuLayer * shape.n_layers)(*(self._layer(i) for i in range(shape.n_layers)))
        embedding = packer.weights["decoder.embedding.weight"]
        self._expect("decoder.embedding.weight", embedding, (shape.vocab_size, shape.d_model))
        norm, shift = self._norm("decoder.norm")
        places = None
        if style.learned_positions:
            places = packer.wide("decoder.positions.weight")
            self._expect("decoder.positions.weight", places, (shape.max_positions, shape.d_model))
        struct = CpuDecoder(
            d_model=shape.d_model,
            n_layers=shape.n_layers,
            n_lower=shape.n_layers,
            n_heads=shape.n_heads,
            n_kv_heads=shape.n_kv_heads,
            d_head=shape.d_head,
            d_ffn=shape.d_ffn,
            vocab_size=shape.vocab_size,
            cache_kind=self._cache_kind,
            layers=layers,
            norm=norm,
            head=self._head(embedding),
            cos=self._table("cos"),
            sin=self._table("sin"),
            eps=style.norm_eps,
            shift=shift,
            is_layer_norm=int(style.norm == "layer"),
            activation=_ACTIVATIONS[style.activation],
            is_gated=int(style.is_gated),
            is_parallel=int(style.is_parallel),
            rotary_width=style.rotary_width,
            window=style.window,
            window_every=max(1, style.window_every),
            score_scale=style.score_scale,
            attention_cap=style.attention_cap,
            logits_cap=style.logits_cap,
            head_scale=1.0,
        )
        self._keeps.append(layers)
        return NativeTextDecoder(struct, embedding, self._keeps, style.embedding_scale, places)

    def _layer(self, i: int) -> CpuLayer:
        at, shape, style, d = f"decoder.layers.{i}", self._shape, self._style, self._shape.d_model
        wide, narrow = shape.n_heads * shape.d_head, shape.n_kv_heads * shape.d_head
        norm1, shift1 = self._norm(f"{at}.norm1")
        norm2, shift2 = self._norm(f"{at}.norm2")
        inner = ("gate", "up") if style.is_gated else ("up",)
        return CpuLayer(
            norm1=norm1,
            qkv=self._linear(
                d, {f"{at}.attention.{part}": n for part, n in (("q", wide), ("k", narrow), ("v", narrow))}
            ),
            out=self._linear(wide, {f"{at}.attention.out": d}),
            norm2=norm2,
            gate_up=self._linear(d, {f"{at}.feed_forward.{part}": shape.d_ffn for part in inner}),
            down=self._linear(shape.d_ffn, {f"{at}.feed_forward.down": d}),
            eps1=style.norm_eps,
            eps2=style.norm_eps,
            shift1=shift1,
            shift2=shift2,
            post1=self._norm(f"{at}.post1", has_shift=False)[0] if style.has_post_norms else None,
            post2=self._norm(f"{at}.post2", has_shift=False)[0] if style.has_post_norms else None,
            cross=CpuCross(),
        )

    def _linear(self, k: int, widths: dict[str, int]) -> c_void_p:
        biases = []
        for name, width in widths.items():
            self._check_weight(f"{name}.weight", k, width)
            if self._style.has_biases:
                bias = self._packer.wide(f"{name}.bias")
                self._expect(f"{name}.bias", bias, (width,))
                biases.append(bias)
        whole = np.concatenate([one for one in biases if one is not None]) if biases else None
        made = self._packer.linear(k, *(f"{name}.weight" for name in widths), bias=whole)
        handle: c_void_p = self._keep(made).handle
        return handle

    def _norm(self, name: str, *, has_shift: bool = True) -> tuple[c_void_p, c_void_p]:
        found = []
        for part in ("weight", "bias"):
            if part == "bias" and (self._style.norm != "layer" or not has_shift):
                found.append(pointer(None))
                continue
            tensor = self._packer.wide(f"{name}.{part}")
            self._expect(f"{name}.{part}", tensor, (self._shape.d_model,))
            found.append(pointer(self._keep(tensor)))
        return found[0], found[1]

    def _head(self, embedding: Any) -> c_void_p:
        weights, d, n = self._packer.weights, self._shape.d_model, self._shape.vocab_size
        for name in ("decoder.head.weight", "decoder.embedding.weight"):
            if name == "decoder.head.weight" and weights.get(name) is not None:
                self._check_weight(name, d, n)
                return self._handle(self._packer.linear(d, name))
            if weights.quantized(name) is not None:
                return self._handle(self._packer.linear(d, name))
        return self._handle(self._packer.numbers([np.ascontiguousarray(embedding.T)]))

    def _handle(self, made: Any) -> c_void_p:
        handle: c_void_p = self._keep(made).handle
        return handle

    def _table(self, name: str) -> c_void_p:
        if not self._style.rotary_width:
            return pointer(None)
        table = self._packer.wide(f"decoder.{name}")
        self._expect(f"decoder.{name}", table, (self._shape.max_positions, self._style.rotary_width // 2))
        return pointer(self._keep(table))

    def _check_weight(self, name: str, k: int, n: int) -> None:
        quantized = self._packer.weights.quantized(name)
        if quantized is not None:
            if not quantized.fits(k, n):
                raise differs(self._bundle, f"{name} {[k, n]}", f"{list(quantized.scales.shape)} blocks")
            return
        self._expect(name, self._packer.weights[name], (k, n))

    def _expect(self, name: str, found: Any, shape: tuple[int, ...]) -> None:
        if found is None or found.shape != shape:
            raise differs(self._bundle, f"{name} {list(shape)}", f"{None if found is None else list(found.shape)}")

    def _keep(self, one: Any) -> Any:
        self._keeps.append(one)
        return one


def _check(bundle: Bundle, shape: DecoderShape, style: DecoderStyle) -> None:
    """Raise BundleError for sizes that the library could not work with."""
    if shape.n_kv_heads < 1 or shape.n_heads % shape.n_kv_heads or shape.n_layers < 1:
        raise differs(bundle, f"{shape.n_heads} heads", f"{shape.n_kv_heads} of keys in {shape.n_layers} layers")
    if style.rotary_width % 2 or not 0 <= style.rotary_width <= shape.d_head or style.activation not in _ACTIVATIONS:
        raise differs(bundle, f"{style.rotary_width} rotated numbers of a head", f"heads {shape.d_head} wide")


__all__ = ["NativeTextDecoder", "load_text_decoder"]
