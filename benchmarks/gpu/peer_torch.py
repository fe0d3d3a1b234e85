"""The same model in torch: fp16, cached loop, materialised cross keys and values; eager, and compiled into one graph.

This is how such a model is usually run. The cache is static, written in place; a step is one token a slot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpu.context import Context

Step = Callable[[Any, Any], Any]  # tokens int64 [B, 1], position int64 [1] -> logits float32 [B, V]


class TorchPeer:
    """Writes about memories [B, S, m] with the decoder's torch module."""

    def __init__(self, context: Context, memory: Any, mask: Any, *, compiled: bool) -> None:
        torch, config = context.torch, context.parts.decoder.config
        self.context, self.torch, self.decoder = context, torch, context.half_decoder
        self.prompt = torch.tensor(context.parts.prompt_ids, device=context.device)
        self.capacity = len(self.prompt) + context.sizes.tokens
        shape = (config.n_layers, 2, len(memory), config.n_kv_heads, self.capacity, config.d_head)
        self.caches = torch.zeros(shape, dtype=torch.float16, device=context.device)
        self.places = torch.arange(self.capacity, device=context.device)
        self.tables = tuple(one.half() for one in (self.decoder.cos, self.decoder.sin))
        self.bias = torch.where(mask, 0.0, -1e30)[:, None, None, None, :]
        self.crosses = [None if one.cross is None else one.cross.keys_values(memory) for one in self.decoder.blocks]
        self.run_layer = torch.compile(_layer, dynamic=False) if compiled else _layer
        self.is_captured = compiled and context.clock.is_cuda
        self._graph: Any = None

    def prefill(self) -> Any:
        """Run the prompt for all slots; returns logits float32 [B, V]."""
        tokens = self.prompt.expand(self.caches.shape[2], -1)
        return self._forward(tokens, self.places[: len(self.prompt)], _layer)

    def step(self, tokens: Any, position: Any) -> Any:
        """Run one token a slot; in one CUDA graph where it is compiled for a GPU."""
        if not self.is_captured:
            return self._forward(tokens, position, self.run_layer)
        if self._graph is None:
            self._capture(tokens, position)
        self._tokens.copy_(tokens)
        self._position.copy_(position)
        self._graph.replay()
        return self._logits

    def greedy(self, count: int) -> Any:
        """Write `count` tokens a slot -> int64 [B, count]."""
        chosen = [self.prefill().argmax(-1, keepdim=True)]
        for t in range(count - 1):
            at = self.places[len(self.prompt) + t : len(self.prompt) + t + 1]
            chosen.append(self.step(chosen[-1], at).argmax(-1, keepdim=True))
        return self.torch.cat(chosen, 1)

    def forced(self, tokens: Any) -> Any:
        """Return logits [B, T, V] before each of the given tokens int64 [B, T]."""
        seen = [self.prefill().clone()]
        for t in range(tokens.shape[1] - 1):
            at = self.places[len(self.prompt) + t : len(self.prompt) + t + 1]
            seen.append(self.step(tokens[:, t : t + 1], at).clone())
        return self.torch.stack(seen, 1)

    def _forward(self, tokens: Any, positions: Any, run_layer: Callable[..., Any]) -> Any:
        x = self.decoder.embedding(tokens)
        # Eagerly the cache is read as far as it is filled; one graph for all steps needs a mask over all of it.
        is_static = run_layer is not _layer
        end = self.capacity if is_static else positions.storage_offset() + len(positions)  # a slice of `places`
        seen = self.places <= positions[:, None] if is_static else None  # [T, C]
        for i, layer in enumerate(self.decoder.blocks):
            x = run_layer(layer, x, positions, seen, end, self.caches[i], self.tables, self.crosses[i], self.bias)
        return self.decoder.logits(x[:, -1])

    def _capture(self, tokens: Any, position: Any) -> None:
        cuda = self.torch.cuda
        self._tokens, self._position = tokens.clone(), position.clone()
        for _ in range(2):  # compiles, and lets libraries choose what they will use
            self._forward(self._tokens, self._position, self.run_layer)
        cuda.synchronize()
        self._graph = cuda.CUDAGraph()
        with cuda.graph(self._graph):
            self._logits = self._forward(self._tokens, self._position, self.run_layer)


def _layer(
    layer: Any, x: Any, positions: Any, seen: Any, end: int, cache: Any, tables: Any, crosses: Any, bias: Any
) -> Any:
    """Run a decoder layer over x [B, T, d]; its cache [2, B, K, C, D] is written in place and read up to `end`.

    Without `seen` the tokens are a whole prompt, or the last one.
    """
    import torch

    q, k, v = layer.attention.project(layer.norm1(x), tables, positions[None])
    cache[0].index_copy_(2, positions, k)
    cache[1].index_copy_(2, positions, v)
    mixed = torch.nn.functional.scaled_dot_product_attention(
        q, cache[0, :, :, :end], cache[1, :, :, :end], attn_mask=seen, enable_gqa=True,
        is_causal=seen is None and x.shape[1] > 1,
    )  # fmt: skip
    x = x + layer.attention.out(mixed.transpose(1, 2).reshape(x.shape))
    if crosses is not None:
        keys, values = crosses
        query = layer.cross.queries(x)  # [B, K, G, T, D]
        scores = (query @ keys.unsqueeze(2).transpose(-1, -2)).float() * layer.cross.d_head**-0.5 + bias
        x = x + layer.cross.finish(scores.softmax(-1).half() @ values.unsqueeze(2))
    return x + layer.feed_forward(layer.norm2(x))
