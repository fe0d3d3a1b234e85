"""The seed's encoder: scGPT on torch's own TransformerEncoder, as upstream runs it.

Post-norm layers, batch first, padding named by `src_key_padding_mask`; gene and value embeddings are summed. Torch
takes its fused path through a layer where its conditions hold (`notes` says whether it was allowed).
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from peers.protocol import Answer, Engine, serve, versions
from peers.seed_parts import WEIGHTS_SEED, TokenisedCells, linear, tokenised_cells
from torch import Tensor, nn

from cellscribe.export.models.scgpt import MAX_VALUE, ContinuousValues, EncoderLayer, ScgptEncoder
from cellscribe.export.random_model import random_parts


class UpstreamScgpt(nn.Module):
    """The scGPT encoder in torch's modules, with the weights of ours, which it takes over."""

    def __init__(self, ours: ScgptEncoder, *, nested: bool = False) -> None:
        super().__init__()
        if not isinstance(ours.values, ContinuousValues):
            raise ValueError("only continuous values are known to the seed's encoder")
        self.genes = nn.Sequential(ours.genes.embedding, ours.genes.norm)
        self.values = nn.Sequential(
            linear(ours.values.linear1), nn.ReLU(), linear(ours.values.linear2), ours.values.norm
        )
        c = ours.config
        layer = nn.TransformerEncoderLayer(
            c.d_model, c.n_heads, c.d_ffn, dropout=0.0, layer_norm_eps=c.layer_norm_eps, batch_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, c.n_layers, enable_nested_tensor=nested)
        for theirs, our in zip(self.transformer.layers, ours.layers, strict=True):
            _take_over(theirs, our)
        self.eval().requires_grad_(False)

    def forward(self, genes: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Encode cells [B, S] -> memory [B, S, d]; padding is false in `mask`."""
        x = self.genes(genes) + self.values(values.clamp(max=MAX_VALUE).unsqueeze(-1))
        memory: Tensor = self.transformer(x, src_key_padding_mask=~mask)
        return memory


def _take_over(theirs: Any, ours: EncoderLayer) -> None:
    joint = linear(ours.qkv)
    theirs.self_attn.in_proj_weight, theirs.self_attn.in_proj_bias = joint.weight, joint.bias
    out = linear(ours.out)  # its type is torch's own, which the fused path checks
    theirs.self_attn.out_proj.weight, theirs.self_attn.out_proj.bias = out.weight, out.bias
    theirs.linear1, theirs.linear2 = linear(ours.linear1), linear(ours.linear2)
    theirs.norm1, theirs.norm2 = ours.norm1, ours.norm2


def encode(encoder: nn.Module, cells: TokenisedCells, batch: int) -> tuple[Tensor, list[float]]:
    """Encode cells, a batch at a time; returns memory [B, S, d] and the seconds of every batch."""
    parts, seconds = [], []
    for genes, values, mask in cells.batches(batch):
        started = time.perf_counter()
        parts.append(encoder(genes, values, mask))
        seconds.append(time.perf_counter() - started)
    return torch.cat(parts), seconds


class SeedScgpt(Engine):
    """The encoder alone."""

    def do_open(
        self, shape: str = "lingocell-1.1b", threads: int = 2, fast_path: bool = True, nested: bool = False
    ) -> Answer:
        """Draw the weights."""
        torch.set_num_threads(threads)
        torch.backends.mha.set_fastpath_enabled(fast_path)
        self._parts = random_parts(shape, WEIGHTS_SEED)
        self._parts.decoder = None
        self._encoder = UpstreamScgpt(self._parts.encoder, nested=nested)
        return {
            "versions": versions("torch"),
            "precision": "fp32",
            "threads": torch.get_num_threads(),
            "notes": f"torch's fused layers {'allowed' if fast_path else 'forbidden'}, nested tensors {nested}",
        }

    @torch.inference_mode()
    def do_encode(self, cells: int, batch: int = 8, save: str = "") -> Answer:
        """Encode the first packaged cells; `save` keeps the memory as float32 .npy."""
        tokenised = tokenised_cells(self._parts, cells)
        started = time.perf_counter()
        memory, seconds = encode(self._encoder, tokenised, batch)
        total = time.perf_counter() - started
        if save:
            np.save(save, memory.numpy())
        return {"seconds": total, "batch_seconds": seconds, "shape": list(memory.shape)}


if __name__ == "__main__":
    serve(SeedScgpt())
