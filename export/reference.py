"""The torch model's own answers on a few cells, kept in the bundle so that parity can be checked anywhere.

The logits come from the plain forward pass (no cache, no prefix, keys and values materialised), over tokens that the
model chose greedily itself: if a runtime chooses the same token at every one of them, its greedy texts are the same.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cellscribe.engine.cells import TokenBatch
from cellscribe.export.graphs import DecoderGraph
from cellscribe.export.models.lingocell import LingoDecoder
from cellscribe.export.models.scgpt import ScgptEncoder

Progress = Callable[[str], None]


def encoder_reference(encoder: ScgptEncoder, batch: TokenBatch) -> dict[str, Tensor]:
    """Return the inputs (genes, values, mask) and outputs (memory [B, S, d], cell [B, d]) of the encoder."""
    inputs = {
        "genes": torch.tensor(batch.genes),
        "values": torch.tensor(batch.values),
        "mask": torch.tensor(batch.mask),
    }
    with torch.no_grad():
        memory, cell = encoder(**inputs)
    return {**inputs, "memory": memory.contiguous(), "cell": cell.clone()}


def decoder_reference(
    decoder: LingoDecoder, prompt_ids: list[int], reference: dict[str, Tensor], n_tokens: int
) -> dict[str, Tensor]:
    """Return greedy ``tokens`` int64 [B, T] after the prompt and the ``logits`` float32 [B, T, V] that chose them."""
    memory, mask = reference["memory"], reference["mask"]
    with torch.no_grad():
        tokens = _greedy(decoder, prompt_ids, memory, mask, n_tokens)
        prompt = torch.tensor(prompt_ids).expand(len(memory), -1)
        logits, _ = decoder.forward_train(torch.cat((prompt, tokens), 1)[:, :-1], memory, mask)
    return {"tokens": tokens, "logits": logits[:, len(prompt_ids) - 1 :].contiguous()}


def _greedy(decoder: LingoDecoder, prompt_ids: list[int], memory: Tensor, mask: Tensor, n_tokens: int) -> Tensor:
    """Choose tokens greedily with caches; the graph's module runs in plain torch here."""
    config, batch = decoder.config, len(memory)
    graph = DecoderGraph(decoder, "materialised")
    attended = [part for layer in decoder.blocks if layer.cross is not None for part in layer.cross.keys_values(memory)]
    capacity = len(prompt_ids) + n_tokens
    caches = [
        torch.zeros(batch, config.n_kv_heads, capacity, config.d_head, dtype=memory.dtype)
        for _ in range(2 * config.n_layers)
    ]
    tokens, start, chosen = torch.tensor(prompt_ids).expand(batch, -1), 0, []
    hidden = torch.zeros(batch, 0, config.d_model, dtype=memory.dtype)
    for _ in range(n_tokens):
        positions = torch.arange(start, start + tokens.shape[1]).expand(batch, -1)
        seen = torch.arange(capacity)[None, None] <= positions[:, :, None]
        outputs = graph(tokens, hidden, positions, seen, mask, attended, caches)
        start += tokens.shape[1]
        tokens = outputs[0][:, -1:].argmax(-1)
        chosen.append(tokens)
        caches = list(outputs[-2 * config.n_layers :])
    return torch.cat(chosen, 1)
