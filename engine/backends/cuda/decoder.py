"""The decoder: the same layers for a step of one token a slot and for the prompt of a few cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cellscribe.engine.backends.cuda.ops import Ops
from cellscribe.engine.backends.cuda.weights import CrossWeights, DecoderWeights, LayerWeights, Norm
from cellscribe.engine.bundle.shapes import CrossShape, DecoderShape

if TYPE_CHECKING:
    from torch import Tensor


class CrossSource(Protocol):
    """What cross-attention reads: cells in slots, or cells whose prompt is run."""

    def attend(self, n: int, query: Tensor, weights: CrossWeights) -> Tensor:
        """Attend query [B, T, H, D] in cross layer `n` -> fp16 [B, T, H, D], values projected."""


@dataclass(frozen=True)
class Stream:
    """Tokens on their way through the layers.

    The residual stream `x` is fp32 [B·T, d]; `update` fp16 [B·T, d] and `bias` fp32 [d] are still to be added to it:
    the next norm does that.
    """

    x: Tensor
    update: Tensor | None = None
    bias: Tensor | None = None

    def last(self, tokens: int) -> Stream:
        """Keep the last token of every slot."""
        if tokens == 1:
            return self
        update = None if self.update is None else self.update[tokens - 1 :: tokens]
        return Stream(self.x[tokens - 1 :: tokens], update, self.bias)


class Decoder:
    """Runs layers of a LingoCell decoder."""

    def __init__(self, weights: DecoderWeights, shape: DecoderShape, cross: CrossShape, ops: Ops) -> None:
        self.weights, self.shape, self.cross_shape, self.ops = weights, shape, cross, ops

    def embed(self, tokens: Tensor) -> Stream:
        """Begin with token ids int64 [B]."""
        return Stream(self.ops.embed(self.weights.embedding, tokens, fp32=True))

    def run(
        self,
        stream: Stream,
        tokens: int,
        layers: range,
        positions: Tensor,
        caches: Tensor,
        cross: CrossSource | None,
    ) -> Stream:
        """Run layers over `tokens` tokens a slot.

        `positions` int32 [B] is where the first of them stands; `caches` [layers, 2, B, K, C, D] are those of just
        these layers, and are written. `cross` may be None below the first cross layer.
        """
        ops = self.ops
        for at, i in enumerate(layers):
            layer = self.weights.layers[i]
            h = self._norm(stream, layer.norm1)
            mixed = self._self_attention(layer, h, tokens, positions, caches[at, 0], caches[at, 1])
            stream = Stream(stream.x, ops.product(mixed, layer.out))
            if layer.cross is not None and cross is not None:
                stream = self._cross_attention(i, layer.cross, stream, tokens, cross)
            h = self._norm(stream, layer.norm2)
            stream = Stream(stream.x, ops.product(ops.gated_silu(ops.product(h, layer.gate_up)), layer.down))
        return stream

    def logits(self, stream: Stream) -> Tensor:
        """Return float32 logits [rows, V]."""
        return self.ops.product_fp32(self._norm(stream, self.weights.norm), self.weights.head)

    def _norm(self, stream: Stream, norm: Norm) -> Tensor:
        return self.ops.add_rms_norm(stream.x, stream.update, stream.bias, norm.weight, norm.eps)

    def _self_attention(
        self, layer: LayerWeights, h: Tensor, tokens: int, positions: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """Attend h fp16 [B·T, d] to the caches [B, K, C, D] with h written into them -> [B·T, H·D]."""
        qkv = self.ops.product(h, layer.qkv)
        return self.attend(qkv.view(-1, tokens, qkv.shape[1]), positions, keys, values)

    def attend(self, qkv: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend qkv fp16 [B, T, (H + 2K) D] to the caches [B, K, C, D], itself written there -> fp16 [B·T, H·D]."""
        shape = self.shape
        self.ops.rotary_cache(qkv, positions, self.weights.tables, keys, values, shape.n_heads)
        query = qkv.view(*qkv.shape[:2], -1, shape.d_head)[:, :, : shape.n_heads]
        mixed = self.ops.attend(query, keys, values, scale=shape.d_head**-0.5, positions=positions)
        return mixed.view(-1, shape.n_heads * shape.d_head)

    def _cross_attention(
        self, i: int, weights: CrossWeights, stream: Stream, tokens: int, cross: CrossSource
    ) -> Stream:
        h = self._norm(stream, weights.norm)
        q = self.ops.product(h, weights.q)
        if weights.q_bias is not None:
            q += weights.q_bias
        query = q.view(-1, tokens, self.cross_shape.n_heads, self.cross_shape.d_head)
        mixed = cross.attend(i - self.shape.n_lower, query, weights)
        return Stream(stream.x, self.ops.product(mixed.reshape(len(h), -1), weights.out), weights.out_bias)
