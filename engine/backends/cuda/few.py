"""The decoder for a step of at most eight rows, where launches and the reading of weights are all that counts.

Norms, activations and residual sums are parts of the products (`cellscribe_skinny_linear`): about half as many launches
as :meth:`cellscribe.engine.backends.cuda.decoder.Decoder.run`, which is the same mathematics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellscribe.engine.backends.cuda.decoder import CrossSource, Decoder, Stream
from cellscribe.engine.backends.cuda.skinny import Input, Output, SkinnyProducts
from cellscribe.engine.backends.cuda.weights import CrossWeights, LayerWeights

if TYPE_CHECKING:
    from torch import Tensor

MAX_ROWS = 8


class FewRows:
    """Runs steps of up to eight rows of a decoder whose sizes the products serve."""

    def __init__(self, decoder: Decoder, products: SkinnyProducts) -> None:
        self._decoder, self._products = decoder, products

    def step(self, tokens: Tensor, positions: Tensor, caches: Tensor, cross: CrossSource) -> Tensor:
        """Run one token a slot through all layers.

        `tokens` int64 [B], `positions` int32 [B], `caches` [L, 2, B, K, C, D] -> float32 logits [B, V].
        """
        x = self._decoder.embed(tokens).x
        for i, layer in enumerate(self._decoder.weights.layers):
            self._self_attention(layer, x, positions, caches[i, 0], caches[i, 1])
            if layer.cross is not None:
                self._cross_attention(i - self._decoder.shape.n_lower, layer.cross, x, cross)
            both = self._products(x, layer.gate_up, norm=layer.norm2)
            self._products(both, layer.down, input_=Input.GATED_SILU, add_to=x)
        weights = self._decoder.weights
        if not self._products.serves(x, weights.head):
            return self._decoder.logits(Stream(x))
        return self._products(x, weights.head, norm=weights.norm, output=Output.FP32)

    def _self_attention(self, layer: LayerWeights, x: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> None:
        qkv = self._products(x, layer.qkv, norm=layer.norm1).unsqueeze(1)
        mixed = self._decoder.attend(qkv, positions, keys, values)
        self._products(mixed, layer.out, add_to=x)

    def _cross_attention(self, n: int, weights: CrossWeights, x: Tensor, cross: CrossSource) -> None:
        shape = self._decoder.cross_shape
        normed = weights.norm.weight is not None
        query = self._products(
            x if normed else x.half(), weights.q, norm=weights.norm if normed else None, bias=weights.q_bias_wide
        )
        mixed = cross.attend(n, query.view(len(x), 1, shape.n_heads, shape.d_head), weights)
        self._products(mixed.reshape(len(x), -1), weights.out, add_to=x, bias=weights.out_bias)
