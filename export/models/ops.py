"""The few operations that ONNX names itself: plain torch in eager mode, one ONNX node each while exporting.

Shapes use B slots, T tokens, C cache positions, S genes in memory, H heads, K key/value heads, D head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLOAT = 1  # onnx.TensorProto.FLOAT


def exporting() -> bool:
    """Whether a graph is being traced, so that operations must appear as single ONNX nodes."""
    return torch.onnx.is_in_onnx_export()


class Dense(nn.Module):
    """A linear map that keeps its weight as [d_in, d_out], the layout of ONNX MatMul, so export shares it."""

    def __init__(self, d_in: int, d_out: int, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_in, d_out).normal_(std=0.02))
        self.bias = nn.Parameter(torch.zeros(d_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., d_in] to [..., d_out]."""
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32 whatever the precision of its input."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [..., width] over the last axis."""
        if exporting():
            return torch.onnx.ops.symbolic(
                "RMSNormalization",
                (x, self.weight),
                {"axis": -1, "epsilon": self.eps, "stash_type": FLOAT},
                dtype=x.dtype,
                shape=x.shape,
                version=23,
            )
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * y.to(x.dtype)


def rotary_tables(width: int, num_positions: int, theta: float) -> tuple[Tensor, Tensor]:
    """Return the cosine and sine tables [num_positions, width / 2], float32, of rotary embeddings (half-split form)."""
    frequency = theta ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.arange(num_positions, dtype=torch.float64)[:, None] * frequency
    return angle.cos().float(), angle.sin().float()


def rotary(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, width: int = 0) -> Tensor:
    """Rotate the first `width` numbers (0: all) of x [B, H, T, D] by its positions int64 [B, T]."""
    if exporting():
        part = 0 if width == x.shape[-1] else width
        return torch.onnx.ops.rotary_embedding(x, cos, sin, positions, rotary_embedding_dim=part)
    c, s = cos[positions][:, None].to(x.dtype), sin[positions][:, None].to(x.dtype)  # [B, 1, T, width/2]
    turned, left = (x[..., :width], x[..., width:]) if width else (x, x[..., :0])
    a, b = turned.chunk(2, -1)
    return torch.cat((a * c - b * s, b * c + a * s, left), -1)


def write_cache(cache: Tensor, update: Tensor, start: Tensor) -> Tensor:
    """Return cache [B, K, C, D] with update [B, K, T, D] written from position start [B] on."""
    if exporting():
        return torch.onnx.ops.symbolic(
            "TensorScatter",
            (cache, update, start),
            {"axis": -2, "mode": "linear"},
            dtype=cache.dtype,
            shape=cache.shape,
            version=24,
        )
    index = start[:, None] + torch.arange(update.shape[2], device=start.device)  # [B, T]
    return cache.scatter(2, index[:, None, :, None].expand(-1, update.shape[1], -1, update.shape[3]), update)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attend q [B, H, T, D] to k, v [B, K, C, D] where the bool mask [B, 1, T or 1, C] is true -> [B, H, T, D]."""
    if exporting():
        return torch.onnx.ops.attention(q, k, v, mask)[0]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=q.shape[1] != k.shape[1])


def capped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, cap: float) -> Tensor:
    """Do the same with scores times `scale`, squashed to cap * tanh(score / cap) where `cap` is not 0."""
    if exporting():
        return torch.onnx.ops.attention(q, k, v, mask, scale=scale, softcap=cap)[0]
    if not cap:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=q.shape[1] != k.shape[1])
    group = q.shape[1] // k.shape[1]
    scores = (q @ k.repeat_interleave(group, 1).transpose(-1, -2)).float() * scale
    scores = (torch.tanh(scores / cap) * cap).masked_fill(~mask, -torch.inf)
    return scores.softmax(-1).to(v.dtype) @ v.repeat_interleave(group, 1)
