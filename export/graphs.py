"""The modules that are traced: their caches are plain inputs and outputs."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from cellscribe.export.models.cross import LatentCross, MaterialisedCross
from cellscribe.export.models.lingocell import Cache, LingoDecoder, Step
from cellscribe.export.models.scgpt import ScgptEncoder

Form = Literal["latent", "materialised"]


class EncoderGraph(nn.Module):
    """encoder.onnx: genes, values, mask -> memory, cell; outputs in float32 or the graph's precision."""

    def __init__(self, encoder: ScgptEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, genes: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return memory [B, S, d] in the graph's precision and float32 cell [B, d]."""
        memory, cell = self.encoder(genes, values, mask)
        return memory, cell.float()


class CrossGraph(nn.Module):
    """cross.onnx: what is computed once per cell from its memory before the decoder can attend to it."""

    def __init__(self, decoder: LingoDecoder, form: Form) -> None:
        super().__init__()
        self.form = form
        self.blocks = [layer.cross for layer in decoder.blocks if layer.cross is not None]
        self.modules_to_trace = nn.ModuleList(self.blocks)

    def forward(self, memory: Tensor) -> tuple[Tensor, ...]:
        """Return keys and values [B, K, S, D] of every cross layer in turn; or one normalised memory [B, S, m]."""
        if self.form == "materialised":
            return tuple(part for block in self.blocks for part in block.keys_values(memory))
        wide = memory.float()
        centred = wide - wide.mean(-1, keepdim=True)
        variance = centred.pow(2).mean(-1, keepdim=True)
        norm = self.blocks[0].memory_norm
        if norm is None:
            raise ValueError("the memory is read as it is: nothing to prepare")
        return ((centred * torch.rsqrt(variance + norm.eps)).to(memory.dtype),)


class DecoderGraph(nn.Module):
    """decoder.onnx: one graph for prompts and for steps.

    New tokens pass through all layers. `hidden` carries the prompt's positions before them that are already known
    below the first cross-attention layer, where nothing depends on the cell: they join there, are written to the
    upper caches, and need no logits. A step has none of them (T1 = 0).
    """

    def __init__(self, decoder: LingoDecoder, form: Form) -> None:
        super().__init__()
        self.decoder, self.form = decoder, form
        kind = LatentCross if form == "latent" else MaterialisedCross
        self.crosses = nn.ModuleList(kind(layer.cross) for layer in decoder.blocks if layer.cross is not None)

    def forward(
        self,
        tokens: Tensor,
        hidden: Tensor,
        positions: Tensor,
        mask: Tensor,
        memory_mask: Tensor | None,
        attended: list[Tensor],
        caches: list[Tensor],
    ) -> tuple[Tensor, ...]:
        """Run new tokens.

        Parameters
        ----------
        tokens
            int64 [B, T].
        hidden
            [B, T1, d], hidden states entering the first cross layer, of the T1 positions before the tokens.
        positions
            int64 [B, T1 + T], consecutive in each row.
        mask
            bool [B, T1 + T, C], which cache positions each of them may see.
        memory_mask
            bool [B, S]; None without cross-attention.
        attended
            Latent: one memory [B, S, m]. Materialised: keys and values [B, K, S, D] of every cross layer in turn.
        caches
            Keys and values [B, K, C, D] of every layer in turn.

        Returns
        -------
        float32 logits [B, T, V]; evidence [B, T, S] and attention [B, L, H, T, S] with cross-attention; the caches.
        """
        known = hidden.shape[1]
        upper = Step(positions, positions[:, 0], mask.unsqueeze(1))
        lower_positions = positions[:, known:]
        lower = Step(lower_positions, lower_positions[:, 0], mask[:, known:].unsqueeze(1))
        bias = None if memory_mask is None else torch.where(memory_mask, 0.0, -1e30).unsqueeze(1)
        x = self.decoder.embedding(tokens)
        tables = (self.decoder.cos.to(x.dtype), self.decoder.sin.to(x.dtype))
        new_caches: list[Tensor] = []
        weights: list[Tensor] = []
        for i, layer in enumerate(self.decoder.blocks):
            if i == self.decoder.n_lower:
                x = torch.cat((hidden, x), 1)
            step = lower if i < self.decoder.n_lower else upper
            cache: Cache = (caches[2 * i], caches[2 * i + 1])
            update, cache = layer.attention(layer.norm1(x), tables, step, cache)
            x, new_caches = x + update, [*new_caches, *cache]
            if layer.cross is not None:
                n = i - self.decoder.n_lower
                source = attended if self.form == "latent" else attended[2 * n : 2 * n + 2]
                update, seen = self.crosses[n](x, *source, bias)
                x, weights = x + update, [*weights, seen[:, :, known:]]
            x = x + layer.feed_forward(layer.norm2(x))
        logits = self.decoder.logits(x[:, known:] if weights else x)
        evidence = _evidence(weights) if weights else ()
        return (logits, *evidence, *new_caches)


def _evidence(weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Average weights [B, H, T, S] of the layers -> evidence [B, T, S], and stack them -> attention [B, L, H, T, S]."""
    total = weights[0].mean(1)
    for layer in weights[1:]:
        total = total + layer.mean(1)
    return total * (1.0 / len(weights)), torch.stack(weights, 1)
