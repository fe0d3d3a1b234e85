"""The bytes and operations that the work cannot do without, and the times that follow from them.

Every figure of the GPU benchmarks and of projections.py is computed here. Shapes: S tokens of a cell (`<cls>` and its
genes), P prompt, C tokens in a cache, H query heads, K key/value heads, D head width, f feed-forward width, m memory
width, V vocabulary, L layers, X layers with cross-attention. fp16 is 2 bytes a number; an operation is one multiply or
one add.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

_HALF = 2
PROMPT_CELLS = 16  # cells whose prompts run together, at most
ENCODE_CELLS = 32  # cells of one run of the encoder, at most


@dataclass(frozen=True)
class Work:
    """Bytes that must cross the memory bus at least once, and operations of the matrix units."""

    bytes: float
    flops: float

    def __add__(self, other: Work) -> Work:
        return Work(self.bytes + other.bytes, self.flops + other.flops)

    def times(self, factor: float) -> Work:
        """Do it several times."""
        return Work(self.bytes * factor, self.flops * factor)


@dataclass(frozen=True)
class Ceilings:
    """What a device can do at best: bytes a second, fp16 operations a second, bytes of L2 cache."""

    name: str
    bandwidth: float
    flops: float
    l2_bytes: int = 0

    def seconds(self, work: Work) -> float:
        """The floor: no version of the work is faster than its slower half."""
        return max(work.bytes / self.bandwidth, work.flops / self.flops)

    def binds(self, work: Work) -> str:
        """Name the slower half."""
        return "memory" if work.bytes / self.bandwidth >= work.flops / self.flops else "arithmetic"


@dataclass(frozen=True)
class Model:
    """Sizes of a LingoCell; `weight_bytes` of a weight that a step reads (2 in fp16, 1 in 8 bits).

    The absorbed key and value weights stay fp16, and so does all that prompts read.
    """

    genes: int  # S
    prompt_len: int  # P
    vocab: int
    d_model: int
    n_layers: int
    n_cross: int
    n_heads: int
    n_kv_heads: int
    d_ffn: int
    cross_heads: int
    cross_kv_heads: int
    d_memory: int
    encoder_layers: int
    encoder_ffn: int
    is_latent: bool = True
    weight_bytes: float = _HALF

    @property
    def d_head(self) -> int:
        """D."""
        return self.d_model // self.n_heads

    @property
    def layer_weights(self) -> int:
        """Queries, keys, values, output, gate, up, down: d (H + 2K) D + H D d + 3 d f."""
        attention = self.d_model * (2 * self.n_heads + 2 * self.n_kv_heads) * self.d_head
        return attention + 3 * self.d_model * self.d_ffn

    @property
    def cross_weights(self) -> int:
        """Query and output of a cross-attention layer: 2 d H D."""
        return 2 * self.d_model * self.cross_heads * self.d_head

    @property
    def absorbed_weights(self) -> int:
        """Key and value weights, which the latent form applies to the query and to the mixture: 2 H D m."""
        return 2 * self.cross_heads * self.d_head * self.d_memory if self.is_latent else 0

    @property
    def step_weights(self) -> int:
        """Weights that a step reads: L layers, X cross-attentions, the head; of the embedding a row a slot."""
        crosses = self.n_cross * (self.cross_weights + self.absorbed_weights)
        return self.n_layers * self.layer_weights + crosses + self.d_model * self.vocab

    def with_weights(self, number: float) -> Model:
        """Return the model with decoder weights of another width."""
        return replace(self, weight_bytes=number)


# lingocell-1.1b; a test holds it against export.random_model.SHAPES.
LINGOCELL = Model(1201, 90, 32000, 2048, 22, 12, 32, 4, 5632, 32, 32, 512, 12, 512)


def model_of(manifest: Any, genes: int) -> Model:
    """Return the sizes of a bundle; S is `genes`."""
    decoder, cross, encoder = manifest.decoder, manifest.cross_attention, manifest.encoder_shape
    return Model(
        genes, len(manifest.prompt.token_ids), decoder.vocab_size, decoder.d_model, decoder.n_layers, cross.n_layers,
        decoder.n_heads, decoder.n_kv_heads, decoder.d_ffn, cross.n_heads, cross.n_kv_heads, cross.d_memory,
        encoder.n_layers, encoder.d_ffn, cross.form == "latent",
    )  # fmt: skip


def memory_bytes(m: Model) -> int:
    """One cell's memory: S m 2."""
    return m.genes * m.d_memory * _HALF


def attended_bytes(m: Model) -> int:
    """Read by one slot in all cross layers of a step: X S m 2 (latent), or X 2 K S D 2 (materialised)."""
    if m.is_latent:
        return m.n_cross * memory_bytes(m)
    return m.n_cross * 2 * m.cross_kv_heads * m.genes * m.d_head * _HALF


def cache_bytes(m: Model, context: float) -> float:
    """Keys and values of one slot's tokens: 2 L K D 2 C."""
    return 2 * m.n_layers * m.n_kv_heads * m.d_head * _HALF * context


def step_work(m: Model, slots: int, context: float) -> Work:
    """One token for each of `slots`: weights once; memory, cache and the embedding's row for each slot.

    Operations of a slot: 2 a weight, 4 H S m a latent cross layer (4 H S D a materialised one), 4 H D C a layer.
    """
    each = attended_bytes(m) + cache_bytes(m, context) + m.d_model * _HALF
    inner = m.d_memory if m.is_latent else m.d_head
    crosses = m.n_cross * 4 * m.cross_heads * m.genes * inner
    flops = 2 * m.step_weights + crosses + m.n_layers * 4 * m.d_model * context
    return Work(step_weight_bytes(m) + slots * each, slots * flops)


def step_weight_bytes(m: Model) -> float:
    """Weights of a step, each read once: 2.27 GB of products in fp16, and 0.05 GB that the latent form absorbs."""
    absorbed = m.n_cross * m.absorbed_weights
    return (m.step_weights - absorbed) * m.weight_bytes + absorbed * _HALF


def step_work_in_cache(m: Model, slots: int, context: float) -> Work:
    """The same where the L2 cache holds all memories from layer to layer: each is then read once a step."""
    whole = step_work(m, slots, context)
    spared = slots * (attended_bytes(m) - memory_bytes(m)) if m.is_latent else 0
    return Work(whole.bytes - spared, whole.flops)


def encoder_work(m: Model, cells: int) -> Work:
    """The encoder over a run of `cells`.

    Operations of a cell: per layer 2 (4 m² + 2 m f) a token and 4 S² m for attention; 2 m² a token for the values.
    Bytes: weights once, and of every cell its tokens in and its memory out.
    """
    layer = 4 * m.d_memory**2 + 2 * m.d_memory * m.encoder_ffn
    weights = m.encoder_layers * layer + m.d_memory**2
    flops = m.genes * 2 * weights + m.encoder_layers * 4 * m.genes**2 * m.d_memory
    return Work(weights * _HALF + cells * (memory_bytes(m) + 13 * m.genes), cells * flops)


def prompt_work(m: Model, cells: int) -> Work:
    """The prompts of `cells` through the X upper layers (the lower ones are the same for all), keys and values made.

    Operations of a cell: 2 P a weight, 4 H D P² / 2 a layer; keys and values of the memory 2 S m 2 K D, attention to
    them 4 P S H D; the head for one token. Bytes: weights once, memory in, caches out.
    """
    wide = m.cross_heads * m.d_head
    made = 2 * m.genes * m.d_memory * 2 * m.cross_kv_heads * m.d_head
    attention = 4 * m.prompt_len * m.genes * wide + 2 * m.d_model * m.prompt_len**2
    products = 2 * m.prompt_len * (m.layer_weights + m.cross_weights)
    flops = m.n_cross * (products + made + attention) + 2 * m.d_model * m.vocab
    projections = 2 * m.d_memory * m.cross_kv_heads * m.d_head
    weights = m.n_cross * (m.layer_weights + m.cross_weights + projections) + m.d_model * m.vocab
    return Work(weights * _HALF + cells * (memory_bytes(m) + cache_bytes(m, m.prompt_len)), cells * flops)


def cell_flops(m: Model, tokens: int) -> float:
    """Operations of one cell from its genes to its last token."""
    steps = (tokens - 1) * step_work(m, 1, mean_context(m, tokens)).flops
    return encoder_work(m, 1).flops + prompt_work(m, 1).flops + steps


def mean_context(m: Model, tokens: int) -> float:
    """What a step of a text finds in its cache, in the mean: P + tokens / 2."""
    return m.prompt_len + tokens / 2


@dataclass(frozen=True)
class CellFloor:
    """Least milliseconds of one cell, by phase, with all slots at work; the first token comes from the prompt."""

    encoder_ms: float
    prompt_ms: float
    steps_ms: float
    step_ms: float  # of one step of all slots
    binds: str  # what a step waits for

    @property
    def ms(self) -> float:
        """All of it."""
        return self.encoder_ms + self.prompt_ms + self.steps_ms


def cell_floor(m: Model, slots: int, tokens: int, ceilings: Ceilings) -> CellFloor:
    """Return the floor of a cell: encoder, prompt and `tokens` - 1 steps, each at the device's ceilings."""
    encoded, prompts = min(slots, ENCODE_CELLS), min(slots, PROMPT_CELLS)
    work = step_work(m, slots, mean_context(m, tokens))
    step = ceilings.seconds(work)
    return CellFloor(
        encoder_ms=1e3 * ceilings.seconds(encoder_work(m, encoded)) / encoded,
        prompt_ms=1e3 * ceilings.seconds(prompt_work(m, prompts)) / prompts,
        steps_ms=1e3 * (tokens - 1) * step / slots,
        step_ms=1e3 * step,
        binds=ceilings.binds(work),
    )
