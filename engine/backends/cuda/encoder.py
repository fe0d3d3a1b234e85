"""The encoder: genes and values in, memory and cell embedding out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellscribe.engine.backends.base import Encoded
from cellscribe.engine.backends.cuda.ops import Ops
from cellscribe.engine.backends.cuda.weights import EncoderWeights
from cellscribe.engine.cells import TokenBatch

if TYPE_CHECKING:
    from torch import Tensor

_MAX_VALUE = 512.0  # values beyond it are clipped before the value MLP, as scGPT does
# Cells of one run: enough rows for full products, and activations of a few hundred megabytes at 1201 genes.
_CHUNK = 32


class Encoder:
    """Runs an scGPT encoder (Cui et al., 2024) with `n_heads` heads."""

    def __init__(self, weights: EncoderWeights, ops: Ops, n_heads: int) -> None:
        self._weights, self._ops, self._n_heads = weights, ops, n_heads

    def encode(self, batch: TokenBatch) -> Encoded:
        """Encode cells a chunk at a time; memory fp16 [B, S, d] stays on the device, cell float32 [B, d] comes back."""
        width = self._weights.genes.shape[1]
        count, length = batch.genes.shape
        chunks = [self._chunk(batch, slice(at, at + _CHUNK)) for at in range(0, count, _CHUNK)]
        memory = chunks[0] if len(chunks) == 1 else self._ops.half(count, length, width)
        for i, chunk in enumerate(chunks if len(chunks) > 1 else ()):
            memory[i * _CHUNK : (i + 1) * _CHUNK] = chunk
        return Encoded(memory, memory[:, 0].float().cpu().numpy())

    def _chunk(self, batch: TokenBatch, part: slice) -> Tensor:
        return self._run(*(self._ops.send(array[part]) for array in (batch.genes, batch.values, batch.mask)))

    def _run(self, genes: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Map genes int64 [B, S], values [B, S] and mask bool [B, S] to memory fp16 [B, S, d]."""
        cells, length = genes.shape
        x = self._embed(genes.reshape(-1), values.float().reshape(-1))
        seen = mask.to(self._ops.torch.uint8)
        for layer in self._weights.layers:
            qkv = self._ops.torch.addmm(layer.qkv_bias, x, layer.qkv)
            q, k, v = qkv.view(cells, length, 3, self._n_heads, -1).unbind(2)  # [B, S, H, D] each
            mixed = self._ops.attend(q, k.transpose(1, 2), v.transpose(1, 2), scale=q.shape[-1] ** -0.5, mask=seen)
            update = self._ops.product(mixed.view(x.shape), layer.out)
            x = self._ops.add_layer_norm(x, update, layer.out_bias, layer.norm1.parts)
            hidden = self._ops.bias_relu_(self._ops.product(x, layer.linear1), layer.linear1_bias)
            update = self._ops.product(hidden, layer.linear2)
            x = self._ops.add_layer_norm(x, update, layer.linear2_bias, layer.norm2.parts)
        return x.view(cells, length, -1)

    def _embed(self, genes: Tensor, values: Tensor) -> Tensor:
        """Embed tokens: genes int64 [rows], values float32 [rows] -> fp16 [rows, d]."""
        w, ops = self._weights, self._ops
        if w.table is not None:
            return ops.embed(w.genes, genes, fp32=False) + ops.embed(w.table, values.long().clamp(min=0), fp32=False)
        if w.expand is None or w.expand_bias is None or w.linear2 is None or w.norm is None:
            return ops.embed(w.genes, genes, fp32=False) * values.half().unsqueeze(-1)
        x = ops.torch.addmm(w.linear2_bias, ops.expand_values(values, w.expand, w.expand_bias, _MAX_VALUE), w.linear2)
        return ops.add_layer_norm(x, None, None, w.norm.parts, (w.genes, genes))
