"""Transformers' T5 with the weights of ours, which gives them away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from peers.seed_parts import linear
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from cellscribe.export.models.ops import Dense
from cellscribe.export.models.t5 import T5, Bias, T5Layer, bucket


def t5_of(ours: T5) -> Any:
    """Make a T5ForConditionalGeneration; texts have no end, so that they are as long as is asked for."""
    c = ours.config
    config = T5Config(
        vocab_size=c.vocab_size, d_model=c.d_model, d_kv=c.d_head, d_ff=c.d_ffn, num_layers=c.n_layers,
        num_decoder_layers=c.n_decoder_layers, num_heads=c.n_heads, relative_attention_num_buckets=c.buckets,
        relative_attention_max_distance=c.max_distance, layer_norm_epsilon=c.norm_eps,
        feed_forward_proj=c.feed_forward, tie_word_embeddings=c.tie_embeddings, decoder_start_token_id=0,
    )  # fmt: skip
    if not c.tie_embeddings or c.feed_forward != "relu":
        raise ValueError("only T5s with tied embeddings and ReLU are known here")
    with torch.device("meta"):
        made = T5ForConditionalGeneration(config)
    shared = ours.embedding.weight
    copies = ("shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head")
    state = {f"{name}.weight": shared for name in copies} | dict(_stacks(ours))
    made.load_state_dict(state, assign=True)
    made.tie_weights()
    made.generation_config.eos_token_id = None
    return made.eval().requires_grad_(False)


def _stacks(ours: T5) -> Iterator[tuple[str, Tensor]]:
    for name, stack in (("encoder", ours.encoder), ("decoder", ours.decoder)):
        yield f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight", _by_bucket(stack.bias)
        yield f"{name}.final_layer_norm.weight", stack.norm.weight
        for i, layer in enumerate(stack.blocks):
            for part, value in _layer(layer):
                yield f"{name}.block.{i}.layer.{part}.weight", value


def _layer(layer: T5Layer) -> Iterator[tuple[str, Tensor]]:
    parts = [("SelfAttention", layer.norm1, layer.attention)]
    if layer.cross is not None and layer.norm_cross is not None:
        parts.append(("EncDecAttention", layer.norm_cross, layer.cross))
    for place, (name, norm, attention) in enumerate(parts):
        yield f"{place}.layer_norm", norm.weight
        for letter, dense in (("q", attention.q), ("k", attention.k), ("v", attention.v), ("o", attention.out)):
            yield f"{place}.{name}.{letter}", _given(dense)
    yield f"{len(parts)}.layer_norm", layer.norm2.weight
    yield f"{len(parts)}.DenseReluDense.wi", _given(layer.feed_forward.up)
    yield f"{len(parts)}.DenseReluDense.wo", _given(layer.feed_forward.down)


def _given(dense: Dense) -> Tensor:
    return linear(dense).weight


def _by_bucket(bias: Bias) -> Tensor:
    """Return a row for every bucket [buckets, H] from one for every distance."""
    distances = torch.arange(len(bias.table)) - bias.farthest
    rows = torch.zeros(bias.config.buckets, bias.table.shape[1])
    rows[bucket(distances, bias.config, both_ways=bias.both_ways)] = bias.table
    return rows
