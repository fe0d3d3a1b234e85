"""What the decoder's cross-attention reads, in the step and while a prompt is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cellscribe.engine.backends.cuda.ops import Ops, Scores
from cellscribe.engine.backends.cuda.weights import CrossWeights
from cellscribe.engine.bundle.shapes import CrossShape

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Seen:
    """Where attention is recorded: evidence fp32 [B, S], and all weights fp32 [B, L, H, S] or None."""

    evidence: Tensor
    attention: Tensor | None = None

    def scores(self, n: int, cross: CrossShape) -> Scores:
        """Return what cross layer `n` adds: the mean over layers and heads grows layer by layer."""
        weights = None if self.attention is None else self.attention[:, n]
        return Scores(self.evidence, 1.0 / (cross.n_layers * cross.n_heads), n > 0, weights)


@dataclass(frozen=True)
class Projected:
    """Keys and values [L, B, K, S, D] of cells, made once per cell; the materialised form in the step."""

    ops: Ops
    shape: CrossShape
    keys: Tensor
    values: Tensor
    mask: Tensor  # uint8 [B, S]
    lengths: Tensor  # int32 [B], up to which the memory is attended to
    seen: Seen

    def attend(self, n: int, query: Tensor, weights: CrossWeights) -> Tensor:
        """See :class:`cellscribe.engine.backends.cuda.decoder.CrossSource`."""
        return self.ops.attend(
            query, self.keys[n], self.values[n], scale=weights.scale, mask=self.mask, lengths=self.lengths,
            scores=self.seen.scores(n, self.shape),
        )  # fmt: skip


@dataclass(frozen=True)
class Projecting:
    """Keys and values that are made of the memory layer by layer: a prompt has queries enough to pay for them.

    `kept` is where the step of the materialised form will find them: [2, L, slots, S, K, D], and which slots.
    """

    ops: Ops
    shape: CrossShape
    memory: Tensor  # [B, S, m]
    mask: Tensor
    lengths: Tensor
    seen: Seen
    kept: tuple[Tensor, Tensor] | None = None

    def attend(self, n: int, query: Tensor, weights: CrossWeights) -> Tensor:
        """See :class:`cellscribe.engine.backends.cuda.decoder.CrossSource`."""
        keys, values = project(self.ops, self.shape, self.memory, weights)
        if self.kept is not None:
            room, slots = self.kept
            room[0, n, slots], room[1, n, slots] = keys.transpose(1, 2), values.transpose(1, 2)
        return self.ops.attend(
            query, keys, values, scale=weights.scale, mask=self.mask, lengths=self.lengths,
            scores=self.seen.scores(n, self.shape),
        )  # fmt: skip


@dataclass(frozen=True)
class Latent:
    """The memory itself, read by the absorbed queries of one token a slot."""

    ops: Ops
    shape: CrossShape
    memory: Tensor  # [B, S, m]
    mask: Tensor
    lengths: Tensor
    seen: Seen

    def attend(self, n: int, query: Tensor, weights: CrossWeights) -> Tensor:
        """See :class:`cellscribe.engine.backends.cuda.decoder.CrossSource`; one token a slot."""
        bmm = self.ops.torch.bmm
        absorbed = bmm(query[:, 0].transpose(0, 1), weights.key)  # [H, B, m]
        scores = self.seen.scores(n, self.shape)
        mixed = self.ops.attend_latent(absorbed, self.memory, self.mask, self.lengths, scores)
        read: Tensor = bmm(mixed, weights.value).transpose(0, 1).unsqueeze(1)  # [B, 1, H, D]
        return read


def project(ops: Ops, shape: CrossShape, memory: Tensor, weights: CrossWeights) -> tuple[Tensor, Tensor]:
    """Project memory [B, S, m] to keys and values [B, K, S, D], strided."""
    cells, genes, width = memory.shape
    rows = memory.reshape(-1, width)
    if weights.memory_norm is not None:
        rows = ops.add_layer_norm(rows, None, None, weights.memory_norm.parts)
    found = []
    for weight, bias in ((weights.to_keys, weights.keys_bias), (weights.to_values, weights.values_bias)):
        made = ops.product(rows, weight) if bias is None else ops.torch.addmm(bias, rows, weight)
        found.append(made.view(cells, genes, -1, shape.d_head).transpose(1, 2))
    return found[0], found[1]
