"""T5 (Raffel et al., 2020): an encoder, and a decoder over static caches that attends to what the encoder made.

Shapes use B sequences, T tokens, S tokens of the encoder, C cache positions, H heads, D head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellscribe.export.models.ops import Dense, RMSNorm, write_cache

_HIDDEN = -1e30  # of what is not attended to; finite, so that a row of padding stays finite
_SHRUNK = 2.0**-6  # a power of two, which costs no digit


@dataclass(frozen=True)
class T5Config:
    """Sizes of a T5, named as in its Hugging Face configuration where they differ."""

    vocab_size: int
    d_model: int = 512
    d_head: int = 64  # d_kv
    n_heads: int = 8
    d_ffn: int = 2048  # d_ff
    n_layers: int = 6  # of the encoder
    n_decoder_layers: int = 6
    buckets: int = 32  # relative_attention_num_buckets
    max_distance: int = 128  # relative_attention_max_distance
    norm_eps: float = 1e-6
    feed_forward: Literal["relu", "gated-gelu"] = "relu"
    tie_embeddings: bool = True


def bucket(distance: Tensor, config: T5Config, *, both_ways: bool) -> Tensor:
    """Return the bucket of each distance, key minus query, int64 of its shape; beyond `max_distance` they share one."""
    number, found = config.buckets, torch.zeros_like(distance)
    if both_ways:
        number //= 2
        found = (distance > 0).long() * number
        distance = distance.abs()
    else:
        distance = -distance.clamp(max=0)
    exact = number // 2
    scale = (number - exact) / math.log(config.max_distance / exact)
    far = exact + ((distance.clamp(min=1).float() / exact).log() * scale).long()
    return found + torch.where(distance < exact, distance, far.clamp(max=number - 1))


class Bias(nn.Module):
    """What a head adds to the scores of a key at a distance: a row for every distance that has one of its own."""

    def __init__(self, config: T5Config, *, both_ways: bool) -> None:
        super().__init__()
        self.config, self.both_ways = config, both_ways
        self.farthest = config.max_distance
        rows = 2 * config.max_distance + 1 if both_ways else config.max_distance + 1
        self.table = nn.Parameter(torch.zeros(rows, config.n_heads))

    def rows_of(self, weight: Tensor) -> Tensor:
        """Return the table for the bias of every bucket, [buckets, H]."""
        nearest = self.farthest if self.both_ways else 0
        distances = torch.arange(-self.farthest, nearest + 1)
        return weight[bucket(distances, self.config, both_ways=self.both_ways)]

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Map positions int64 [B, T] and [1, C] to [B, H, T, C]."""
        distance = keys.unsqueeze(1) - queries.unsqueeze(2)
        row = _between(distance, -self.farthest, self.farthest if self.both_ways else 0) + self.farthest
        return F.embedding(row, self.table).permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Attention whose scores are not scaled, without biases."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.n_heads, inner = config.n_heads, config.n_heads * config.d_head
        self.q, self.k, self.v = (Dense(config.d_model, inner) for _ in range(3))
        self.out = Dense(inner, config.d_model)

    def heads(self, x: Tensor) -> Tensor:
        """Split [B, T, H·D] into [B, H, T, D]."""
        return x.reshape(*x.shape[:2], self.n_heads, -1).transpose(1, 2)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map [B, T, d] to keys and values, each [B, H, T, D]."""
        return self.heads(self.k(x)), self.heads(self.v(x))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Attend x [B, T, d] to keys and values [B, H, S, D] -> [B, T, d], weights float32 [B, H, T, S]."""
        scores = (self.heads(self.q(x)) @ keys.transpose(-1, -2)).float() + bias
        weights = scores.softmax(-1)
        mixed = (weights.to(values.dtype) @ values).transpose(1, 2)
        return self.out(mixed.reshape(*x.shape[:2], -1)), weights


class FeedForward(nn.Module):
    """ReLU between two maps, or GELU of a gate times a third."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.up, self.down = Dense(config.d_model, config.d_ffn), Dense(config.d_ffn, config.d_model)
        self.gate = Dense(config.d_model, config.d_ffn) if config.feed_forward == "gated-gelu" else None

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, d] to [B, T, d]; float32, as in half precision the last map's sums would pass what that holds."""
        y = F.relu(self.up(x)) if self.gate is None else F.gelu(self.gate(x), approximate="tanh") * self.up(x)
        return self.down(y * _SHRUNK).float() * (1.0 / _SHRUNK) if y.dtype == torch.float16 else self.down(y)


class T5Layer(nn.Module):
    """Self-attention, attention to the encoder where the layer has it, and a feed-forward; pre-norm."""

    def __init__(self, config: T5Config, *, has_cross: bool) -> None:
        super().__init__()
        self.norm1, self.attention = RMSNorm(config.d_model, config.norm_eps), Attention(config)
        self.norm_cross = RMSNorm(config.d_model, config.norm_eps) if has_cross else None
        self.cross = Attention(config) if has_cross else None
        self.norm2, self.feed_forward = RMSNorm(config.d_model, config.norm_eps), FeedForward(config)


class T5Stack(nn.Module):
    """The layers of an encoder or of a decoder."""

    def __init__(self, config: T5Config, *, is_decoder: bool) -> None:
        super().__init__()
        self.bias = Bias(config, both_ways=not is_decoder)
        number = config.n_decoder_layers if is_decoder else config.n_layers
        self.layers = nn.ModuleList(T5Layer(config, has_cross=is_decoder) for _ in range(number))
        self.norm = RMSNorm(config.d_model, config.norm_eps)

    @property
    def blocks(self) -> list[T5Layer]:
        """The layers, typed."""
        return cast("list[T5Layer]", list(self.layers))


class T5(nn.Module):
    """Embedding, encoder, decoder and head; without a head of its own the embedding is one, scaled by d^-0.5."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder, self.decoder = T5Stack(config, is_decoder=False), T5Stack(config, is_decoder=True)
        self.head = None if config.tie_embeddings else Dense(config.d_model, config.vocab_size)

    def encode(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map embeddings [B, S, d] with bool [B, S], true for what counts, to states [B, S, d]."""
        x, places = x.float(), torch.arange(x.shape[1], device=x.device)[None]
        bias = self.encoder.bias(places, places).float() + torch.where(mask, 0.0, _HIDDEN)[:, None, None, :]
        for layer in self.encoder.blocks:
            y = self.narrow(layer.norm1(x))
            x = x + layer.attention(y, *layer.attention.keys_values(y), bias)[0]
            x = x + layer.feed_forward(self.narrow(layer.norm2(x)))
        return self.narrow(self.encoder.norm(x))

    def halve(self) -> T5:
        """Turn the weights to half precision, but for norms: T5's sums of all layers pass what that holds."""
        self.half()
        for one in self.modules():
            if isinstance(one, RMSNorm):
                one.float()
        return self

    def narrow(self, x: Tensor) -> Tensor:
        """Bring numbers to the precision of the weights."""
        return x.to(self.embedding.weight.dtype)

    def logits(self, states: Tensor) -> Tensor:
        """Map the decoder's last states [B, T, d] to float32 logits [B, T, V]."""
        if self.head is not None:
            return self.head(states).float()
        return ((states * self.config.d_model**-0.5) @ self.embedding.weight.t()).float()


class T5EncoderGraph(nn.Module):
    """encoder.onnx: prompts with the features of a cell in their midst."""

    def __init__(self, t5: T5) -> None:
        super().__init__()
        self.t5 = t5

    def forward(self, tokens: Tensor, mask: Tensor, features: Tensor, starts: Tensor) -> Tensor:
        """Map prompts to states [B, S, d].

        Parameters
        ----------
        tokens, mask
            int64 and bool [B, S], true for what counts.
        features, starts
            Features [B, Q, d], and where they take the tokens' place, int64 [B]; S or more for a prompt without.
        """
        x = self.t5.embedding(tokens)
        place = torch.arange(tokens.shape[1], device=tokens.device)[None] - starts[:, None]  # [B, S]
        count = features.shape[1]
        is_inside = (place >= 0) & (place < count)
        index = _between(place, 0, count - 1).unsqueeze(-1).expand(-1, -1, x.shape[2])
        x = torch.where(is_inside.unsqueeze(-1), features.gather(1, index), x)
        return self.t5.encode(x, mask)


class T5CrossGraph(nn.Module):
    """cross.onnx: the encoder's states -> keys and values of every decoder layer."""

    def __init__(self, t5: T5) -> None:
        super().__init__()
        self.layers = nn.ModuleList(cast(Attention, layer.cross) for layer in t5.decoder.blocks)

    def forward(self, states: Tensor) -> tuple[Tensor, ...]:
        """Map [B, S, d] to keys and values [B, H, S, D] of every layer in turn."""
        layers = cast("list[Attention]", list(self.layers))
        return tuple(part for layer in layers for part in layer.keys_values(states))


class T5DecoderGraph(nn.Module):
    """decoder.onnx: one graph for prompts and for steps, with the inputs of every other decoder of the engine.

    All layers attend to the encoder, so that nothing of a prompt is known below them (`hidden` is empty).
    """

    def __init__(self, t5: T5) -> None:
        super().__init__()
        self.t5 = t5

    def forward(
        self, tokens: Tensor, positions: Tensor, mask: Tensor, memory_mask: Tensor, attended: list[Tensor],
        caches: list[Tensor],
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Run new tokens.

        Parameters
        ----------
        tokens, positions
            int64 [B, T]; positions are consecutive in each row.
        mask
            bool [B, T, C], which cache positions each of them may see.
        memory_mask
            bool [B, S].
        attended
            Keys and values [B, H, S, D] of every layer in turn, of the encoder's states.
        caches
            Keys and values [B, H, C, D] of every layer in turn.

        Returns
        -------
        float32 logits [B, T, V] and states [B, T, d]; evidence [B, T, S]; the caches.
        """
        stack, start = self.t5.decoder, positions[:, 0]
        t5, x = self.t5, self.t5.embedding(tokens).float()
        keys_at = torch.arange(mask.shape[2], device=tokens.device)[None]
        own = stack.bias(positions, keys_at).float() + torch.where(mask, 0.0, _HIDDEN).unsqueeze(1)
        other = torch.where(memory_mask, 0.0, _HIDDEN)[:, None, None, :]
        new_caches: list[Tensor] = []
        evidence: Tensor | None = None
        for i, layer in enumerate(stack.blocks):
            y = t5.narrow(layer.norm1(x))
            key, value = layer.attention.keys_values(y)
            keys, values = write_cache(caches[2 * i], key, start), write_cache(caches[2 * i + 1], value, start)
            new_caches += (keys, values)
            x = x + layer.attention(y, keys, values, own)[0]
            assert layer.cross is not None
            assert layer.norm_cross is not None
            asking = t5.narrow(layer.norm_cross(x))
            update, weights = layer.cross(asking, attended[2 * i], attended[2 * i + 1], other)
            seen = weights.mean(1)
            x, evidence = x + update, seen if evidence is None else evidence + seen
            x = x + layer.feed_forward(t5.narrow(layer.norm2(x)))
        assert evidence is not None
        states = stack.norm(x)
        return t5.logits(t5.narrow(states)), states, evidence * (1.0 / len(stack.blocks)), *new_caches


def _between(x: Tensor, least: int, most: int) -> Tensor:
    """Clamp whole numbers: TensorRT's Clip takes floating ones alone, its Min and Max take both."""
    return torch.minimum(torch.maximum(x, x.new_full((), least)), x.new_full((), most))
