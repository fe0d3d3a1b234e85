"""The weights of a bundle on the device, arranged for the kernels and for few, wide products.

Products are kept in fp16, norms and biases in float32. A bundle in fp32 is rounded while it is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Norm:
    """Scale and epsilon of an RMS norm; a scale of None leaves its input as it is."""

    weight: Tensor | None
    eps: float


@dataclass(frozen=True)
class LayerNorm:
    """Scale, shift and epsilon."""

    weight: Tensor
    bias: Tensor
    eps: float

    @property
    def parts(self) -> tuple[Tensor, Tensor, float]:
        """As the kernel takes them."""
        return self.weight, self.bias, self.eps


@dataclass(frozen=True)
class CrossWeights:
    """Cross-attention of one layer.

    `key` [H, D, m] and `value` [H, m, D] absorb (latent form only); `to_keys` and `to_values` [m, K·D] project a memory
    (`memory_norm` first, where there is one). `out` carries the gate, `out_bias` whatever is constant.
    """

    norm: Norm
    q: Tensor
    q_bias: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    to_keys: Tensor
    to_values: Tensor
    keys_bias: Tensor | None
    values_bias: Tensor | None
    memory_norm: LayerNorm | None
    scale: float
    key: Tensor | None = None
    value: Tensor | None = None

    @cached_property
    def q_bias_wide(self) -> Tensor | None:
        """The bias of the queries in float32."""
        return None if self.q_bias is None else self.q_bias.float()


@dataclass(frozen=True)
class LayerWeights:
    """One decoder layer: `qkv` [d, (H + 2K) D], `out` [H·D, d], `gate_up` [d, 2 f], `down` [f, d]."""

    norm1: Norm
    qkv: Tensor
    out: Tensor
    norm2: Norm
    gate_up: Tensor
    down: Tensor
    cross: CrossWeights | None


@dataclass(frozen=True)
class DecoderWeights:
    """A decoder; `prefix` holds hidden states and lower keys and values of the prompt but its last token."""

    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    norm: Norm
    head: Tensor
    tables: tuple[Tensor, Tensor]
    prefix: dict[str, Tensor]
    memory_norm: LayerNorm | None  # of a prepared latent memory


@dataclass(frozen=True)
class EncoderLayerWeights:
    """One encoder layer."""

    qkv: Tensor
    qkv_bias: Tensor
    out: Tensor
    out_bias: Tensor
    norm1: LayerNorm
    linear1: Tensor
    linear1_bias: Tensor
    linear2: Tensor
    linear2_bias: Tensor
    norm2: LayerNorm


@dataclass(frozen=True)
class EncoderWeights:
    """An encoder; `genes` [V, d] are normed already. Values go through an MLP, or a table [n, d] that is normed."""

    genes: Tensor
    layers: tuple[EncoderLayerWeights, ...]
    expand: Tensor | None = None
    expand_bias: Tensor | None = None
    linear2: Tensor | None = None
    linear2_bias: Tensor | None = None
    norm: LayerNorm | None = None
    table: Tensor | None = None
