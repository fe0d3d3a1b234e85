"""Sizes of the graphs of a bundle, and habits of its decoder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class EncoderShape:
    """Sizes of encoder.onnx."""

    d_model: int
    n_layers: int
    n_heads: int
    d_ffn: int


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of decoder.onnx; `n_lower` layers run below the first cross-attention layer."""

    vocab_size: int
    d_model: int
    n_layers: int
    n_lower: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_ffn: int
    max_positions: int


@dataclass(frozen=True)
class DecoderStyle:
    """What a decoder without an encoder does otherwise than a Llama; see ``CausalConfig`` of the exporter.

    `norm` "layer" or "rms" with `norm_eps`; the feed-forward's `activation` and whether it `is_gated`; attention and
    feed-forward side by side (`is_parallel`), normed again before they are added (`has_post_norms`), with biases
    (`has_biases`); `rotary_width` leading numbers of a head are rotated; `learned_positions` are added to tokens;
    factors of embedded tokens and of scores; caps of scores and logits (0: none); a `window` of the last positions in
    every `window_every`-th layer (0: none).
    """

    norm: Literal["layer", "rms"]
    norm_eps: float
    activation: Literal["gelu", "gelu_tanh", "silu"]
    is_gated: bool
    is_parallel: bool
    has_post_norms: bool
    has_biases: bool
    rotary_width: int
    learned_positions: bool
    embedding_scale: float
    score_scale: float
    attention_cap: float
    logits_cap: float
    window: int
    window_every: int

    def is_windowed(self, layer: int) -> bool:
        """Whether a layer sees only the last positions."""
        return self.window > 0 and layer % self.window_every == 0


@dataclass(frozen=True)
class CrossShape:
    """How the decoder attends to a cell; `prepared` says that cross.onnx turns the memory into what it reads."""

    form: Literal["latent", "materialised"]
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_memory: int
    prepared: bool


@dataclass(frozen=True)
class BertShape:
    """Sizes of a BERT; `activation` of its feed-forwards, and the epsilon of its norms."""

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    d_ffn: int
    max_positions: int
    activation: Literal["relu", "gelu"]
    norm_eps: float


@dataclass(frozen=True)
class RankShape:
    """Encoders of a bundle that reads ranks: of cells, and where it matches texts, of texts; `d_vector` is theirs."""

    cell: BertShape
    d_vector: int
    text: BertShape | None = None


@dataclass(frozen=True)
class T5Shape:
    """Sizes of a T5: encoder.onnx, cross.onnx and decoder.onnx of a bundle that follows instructions.

    Scores get a bias by the distance of key and query, each distance its own up to `reach`; `activation` of the
    feed-forwards, gated where `is_gated`, and the epsilon of the norms; a head without weights of its own is the
    embedding, its input scaled by `head_scale`.
    """

    vocab_size: int
    d_model: int
    n_encoder_layers: int
    n_layers: int
    n_heads: int
    d_head: int
    d_ffn: int
    reach: int
    activation: Literal["relu", "gelu_tanh"]
    is_gated: bool
    norm_eps: float
    head_scale: float


@dataclass(frozen=True)
class TowerShape:
    """Sizes of tower.onnx: expression of `n_genes` in, embeddings of `n_queries` positions of a prompt out."""

    n_genes: int
    n_queries: int


@dataclass(frozen=True)
class ProfileShape:
    """Sizes of profile.onnx, and the log library size that cells are drawn with: normal, of this mean and deviation.

    ValueError where these are no numbers, or the deviation is below 0.
    """

    n_genes: int
    n_latent: int
    library_mean: float
    library_deviation: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.library_mean) and 0.0 <= self.library_deviation < math.inf):
            raise ValueError(
                f"library_mean {self.library_mean:g} and library_deviation {self.library_deviation:g} are no mean and "
                "deviation of a normal distribution"
            )
