"""The two forms of cross-attention that a decoder graph can hold.

For head h with key weights W_k and value weights W_v, and memory rows m_s: q·(W_k m_s) = (W_kᵀ q)·m_s and
Σ p_s W_v m_s = W_v Σ p_s m_s. The **latent** form attends to the memory itself, shared by all heads of all layers:
fewest bytes per step. The **materialised** form keeps keys and values per layer: fewest operations with few
key/value heads. A key bias is constant over s and drops out of the softmax; a value bias passes through, as p sums to
one. A LayerNorm of the memory is split: its mean and variance are taken once, its scale and shift enter the weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cellscribe.export.models.lingocell import CrossAttention


class MaterialisedCross(nn.Module):
    """Cross-attention over keys and values [B, K, S, D] that were projected once per cell."""

    def __init__(self, cross: CrossAttention) -> None:
        super().__init__()
        self.cross = cross

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Attend x [B, T, d] under an additive bias [B, 1, S] -> [B, T, d], weights [B, H, T, S]."""
        q = self.cross.queries(x)  # [B, K, G, T, D]
        batch, kv, group, length, width = q.shape
        q = q.reshape(batch, kv, group * length, width) * width**-0.5
        scores = (q @ keys.transpose(-1, -2)).float() + bias.unsqueeze(1)  # [B, K, G*T, S]
        weights = scores.softmax(-1)
        mixed = weights.to(values.dtype) @ values
        y = self.cross.finish(mixed.reshape(batch, kv, group, length, width))
        return y, weights.reshape(batch, kv * group, length, -1)


class LatentCross(nn.Module):
    """Cross-attention whose absorbed queries [B, H, T, m] read the memory [B, S, m] itself."""

    def __init__(self, cross: CrossAttention) -> None:
        super().__init__()
        self.cross = cross
        kv, width = cross.n_kv_heads, cross.d_head
        k, v = cross.k.weight.reshape(-1, kv, width), cross.v.weight.reshape(-1, kv, width)  # [m, K, D]
        shift = torch.zeros(kv * width) if cross.v.bias is None else cross.v.bias.clone()
        if cross.memory_norm is not None:
            scale, offset = cross.memory_norm.weight, cross.memory_norm.bias
            shift = shift + offset @ cross.v.weight
            k, v = k * scale[:, None, None], v * scale[:, None, None]
        self.key = nn.Parameter((k * width**-0.5).permute(1, 2, 0).contiguous(), requires_grad=False)  # [K, D, m]
        self.value = nn.Parameter(v.permute(1, 0, 2).contiguous(), requires_grad=False)  # [K, m, D]
        has_shift = cross.v.bias is not None or cross.memory_norm is not None
        self.shift = nn.Parameter(shift.reshape(1, kv, 1, 1, width), requires_grad=False) if has_shift else None

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Attend x [B, T, d] under an additive bias [B, 1, S] -> [B, T, d], weights [B, H, T, S].

        The head axis leads in both per-head products, so that a weight is read once for all slots.
        """
        q = self.cross.queries(x)  # [B, K, G, T, D]
        batch, kv, group, length, width = q.shape
        rows = group * length
        q = q.reshape(batch, kv, rows, width).transpose(0, 1).reshape(kv, batch * rows, width) @ self.key
        q = q.reshape(kv, batch, rows, -1).transpose(0, 1).reshape(batch, kv * rows, -1)  # [B, K*G*T, m]
        weights = ((q @ memory.transpose(-1, -2)).float() + bias).softmax(-1)  # [B, K*G*T, S]
        mixed = (weights.to(memory.dtype) @ memory).reshape(batch, kv, rows, -1)
        mixed = mixed.transpose(0, 1).reshape(kv, batch * rows, -1) @ self.value
        mixed = mixed.reshape(kv, batch, group, length, width).transpose(0, 1)
        y = self.cross.finish(mixed if self.shift is None else mixed + self.shift)
        return y, weights.reshape(batch, kv * group, length, -1)


_BYTES_PER_NUMBER = 2
_OPERATIONS_PER_BYTE = 16  # what a machine computes while it reads a byte: above a small CPU, well below a GPU


def step_cost(numbers: int, operations: int) -> float:
    """Return the cost of a step in bytes read: operations count as the bytes that would be read meanwhile."""
    return numbers * _BYTES_PER_NUMBER + operations / _OPERATIONS_PER_BYTE


def latent_is_cheaper(n_heads: int, n_kv_heads: int, d_head: int, d_memory: int) -> bool:
    """Choose the form whose step costs less, per layer, slot and gene.

    The latent form reads the memory row (m numbers) and does 2·H·m operations each for scores and mixture; the
    materialised form reads a key and a value of every key/value head (2·K·D numbers) and does 2·H·D for each. An
    estimate by arithmetic, not a measurement: with m 512, D 64 and 32 heads, 32 key/value heads make the latent form
    the cheaper one and 4 the materialised.
    """
    latent = step_cost(d_memory, 4 * n_heads * d_memory)
    materialised = step_cost(2 * n_kv_heads * d_head, 4 * n_heads * d_head)
    return latent < materialised
