"""Reading the weights of a bundle onto the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe.engine.backends.cuda.weights import (
    CrossWeights,
    DecoderWeights,
    EncoderLayerWeights,
    EncoderWeights,
    LayerNorm,
    LayerWeights,
    Norm,
)
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.load import CROSS, DECODER, ENCODER, PREFIX
from cellscribe.engine.bundle.onnx_weights import OnnxWeights, onnx_weights

if TYPE_CHECKING:
    from torch import Tensor

# A memory norm is torch's LayerNorm with its default epsilon; cross.onnx keeps it as an unnamed constant.
_MEMORY_EPS = 1e-5


class Placer:
    """Puts weights of one ONNX file on a device."""

    def __init__(self, weights: OnnxWeights, torch: Any, device: Any) -> None:
        self.weights, self.torch, self.device = weights, torch, device

    def half(self, *names: str) -> Tensor:
        """Place a weight in fp16; several [d_in, n_i] side by side."""
        parts = [self._copy(self.weights[name], np.float16) for name in names]
        return parts[0] if len(parts) == 1 else self.torch.cat(parts, 1)

    def wide(self, name: str) -> Tensor:
        """Place a weight in float32."""
        return self._copy(self.weights[name], np.float32)

    def wide_or_none(self, name: str) -> Tensor | None:
        """Place a weight in float32 where there is one."""
        return None if self.weights.get(name) is None else self.wide(name)

    def norm(self, name: str) -> Norm:
        """Place an RMS norm; none of that name leaves its input as it is."""
        if self.weights.get(f"{name}.weight") is None:
            return Norm(None, 0.0)
        return Norm(self.wide(f"{name}.weight"), self.weights.epsilon(f"{name}.weight"))

    def layer_norm(self, name: str, eps: float | None = None) -> LayerNorm:
        """Place a LayerNorm."""
        found = self.weights.epsilon(f"{name}.weight") if eps is None else eps
        return LayerNorm(self.wide(f"{name}.weight"), self.wide(f"{name}.bias"), found)

    def _copy(self, array: np.ndarray[Any, Any], dtype: type) -> Tensor:
        # A mapped weight that needs no rounding goes from the page cache to the device as it is.
        rounded = array if array.dtype == dtype else array.astype(dtype)
        placed: Tensor = self.torch.from_numpy(np.require(rounded, requirements="W")).to(self.device)
        return placed


def load_decoder(bundle: Bundle, torch: Any, device: Any) -> DecoderWeights:
    """Read the decoder of a bundle."""
    placer = Placer(onnx_weights(bundle.path(DECODER)), torch, device)
    manifest = bundle.manifest
    shape, cross = manifest.decoder, manifest.cross_attention
    assert shape is not None
    assert cross is not None
    latent = cross.form == "latent"
    projections = None if latent else Placer(onnx_weights(bundle.path(CROSS)), torch, device)
    layers = []
    for i in range(shape.n_layers):
        n, at = i - shape.n_lower, f"decoder.layers.{i}"
        block = None
        if n >= 0:
            width = cross.n_heads // cross.n_kv_heads
            block = (
                _latent(placer, n, width) if projections is None else _projected(placer, projections, n, cross.d_head)
            )
        layers.append(
            LayerWeights(
                norm1=placer.norm(f"{at}.norm1"),
                qkv=placer.half(*(f"{at}.attention.{part}.weight" for part in "qkv")),
                out=placer.half(f"{at}.attention.out.weight"),
                norm2=placer.norm(f"{at}.norm2"),
                gate_up=placer.half(f"{at}.feed_forward.gate.weight", f"{at}.feed_forward.up.weight"),
                down=placer.half(f"{at}.feed_forward.down.weight"),
                cross=block,
            )
        )
    embedding = placer.half("decoder.embedding.weight")
    tied = placer.weights.get("decoder.head.weight") is None
    head = embedding.t().contiguous() if tied else placer.half("decoder.head.weight")
    prefix = {n: torch.from_numpy(v.astype(np.float16)).to(device) for n, v in bundle.tensors(PREFIX).items()}
    norm = _plain_norm(torch, device, cross.d_memory) if latent and cross.prepared else None
    tables = (placer.wide("decoder.cos"), placer.wide("decoder.sin"))
    return DecoderWeights(embedding, tuple(layers), placer.norm("decoder.norm"), head, tables, prefix, norm)


def load_encoder(bundle: Bundle, torch: Any, device: Any) -> EncoderWeights:
    """Read the encoder of a bundle."""
    placer = Placer(onnx_weights(bundle.path(ENCODER)), torch, device)
    layers = []
    for i in range(bundle.manifest.encoder_shape.n_layers):
        at = f"encoder.layers.{i}"
        layers.append(
            EncoderLayerWeights(
                qkv=placer.half(f"{at}.qkv.weight"),
                qkv_bias=placer.half(f"{at}.qkv.bias"),
                out=placer.half(f"{at}.out.weight"),
                out_bias=placer.wide(f"{at}.out.bias"),
                norm1=placer.layer_norm(f"{at}.norm1"),
                linear1=placer.half(f"{at}.linear1.weight"),
                linear1_bias=placer.wide(f"{at}.linear1.bias"),
                linear2=placer.half(f"{at}.linear2.weight"),
                linear2_bias=placer.wide(f"{at}.linear2.bias"),
                norm2=placer.layer_norm(f"{at}.norm2"),
            )
        )
    genes = _normed_table(placer, "encoder.genes")
    style = bundle.manifest.cell_input.value_style
    if style == "category":
        return EncoderWeights(genes, tuple(layers), table=_normed_table(placer, "encoder.values"))
    if style == "scaling":
        return EncoderWeights(genes, tuple(layers))
    return EncoderWeights(
        genes,
        tuple(layers),
        expand=placer.wide("encoder.values.linear1.weight").reshape(-1),
        expand_bias=placer.wide("encoder.values.linear1.bias"),
        linear2=placer.half("encoder.values.linear2.weight"),
        linear2_bias=placer.half("encoder.values.linear2.bias"),
        norm=placer.layer_norm("encoder.values.norm"),
    )


def _latent(placer: Placer, n: int, group: int) -> CrossWeights:
    """Weights of a cross layer that reads the memory itself: every query head gets its own absorbing weights."""
    at = f"crosses.{n}"
    key, value = placer.half(f"{at}.key"), placer.half(f"{at}.value")  # [K, D, m], [K, m, D]
    shift = placer.wide_or_none(f"{at}.shift")
    width = key.shape[-1]
    if shift is not None:
        shift = shift.reshape(-1, key.shape[1]).repeat_interleave(group, 0).reshape(-1)  # [H·D]
    out, bias = _out(placer, f"{at}.cross", shift)
    return CrossWeights(
        norm=placer.norm(f"{at}.cross.norm"),
        q=placer.half(f"{at}.cross.q.weight"),
        q_bias=_half_or_none(placer, f"{at}.cross.q.bias"),
        out=out,
        out_bias=bias,
        to_keys=key.permute(2, 0, 1).reshape(width, -1).contiguous(),
        to_values=value.permute(1, 0, 2).reshape(width, -1).contiguous(),
        keys_bias=None,
        values_bias=None,
        memory_norm=None,
        scale=1.0,  # the keys carry it
        key=key.repeat_interleave(group, 0),
        value=value.repeat_interleave(group, 0),
    )


def _projected(placer: Placer, projections: Placer, n: int, d_head: int) -> CrossWeights:
    at, to = f"crosses.{n}.cross", f"modules_to_trace.{n}"
    out, bias = _out(placer, at, None)
    normed = projections.weights.get(f"{to}.memory_norm.weight") is not None
    return CrossWeights(
        norm=placer.norm(f"{at}.norm"),
        q=placer.half(f"{at}.q.weight"),
        q_bias=_half_or_none(placer, f"{at}.q.bias"),
        out=out,
        out_bias=bias,
        to_keys=projections.half(f"{to}.k.weight"),
        to_values=projections.half(f"{to}.v.weight"),
        keys_bias=_half_or_none(projections, f"{to}.k.bias"),
        values_bias=_half_or_none(projections, f"{to}.v.bias"),
        memory_norm=projections.layer_norm(f"{to}.memory_norm", _MEMORY_EPS) if normed else None,
        scale=d_head**-0.5,
    )


def _out(placer: Placer, at: str, shift: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the output projection with its gate, and what it adds whatever the input."""
    weight = placer.wide(f"{at}.out.weight")
    bias = placer.wide_or_none(f"{at}.out.bias")
    gate = placer.wide_or_none(f"{at}.gate")
    if shift is not None:
        shifted = shift @ weight
        bias = shifted if bias is None else bias + shifted
    if gate is not None:
        weight = weight * gate.tanh()
        bias = None if bias is None else bias * gate.tanh()
    return weight.half(), bias


def _half_or_none(placer: Placer, name: str) -> Tensor | None:
    return None if placer.weights.get(name) is None else placer.half(name)


def _normed_table(placer: Placer, at: str) -> Tensor:
    """Norm a token table once: the norm of a row depends on nothing else."""
    norm, table = placer.layer_norm(f"{at}.norm"), placer.wide(f"{at}.embedding.weight")
    functional = placer.torch.nn.functional
    normed: Tensor = functional.layer_norm(table, table.shape[-1:], norm.weight, norm.bias, norm.eps)
    return normed.half()


def _plain_norm(torch: Any, device: Any, width: int) -> LayerNorm:
    return LayerNorm(torch.ones(width, device=device), torch.zeros(width, device=device), _MEMORY_EPS)
