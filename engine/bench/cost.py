"""Bytes and operations of an encoder run, a prompt run and a decode step, from the sizes in a bundle's manifest.

Every figure is a floor of the form that an engine uses (its precision, cross-attention over the memory itself or over
keys and values), not of every way to the same texts: norms, rotations, softmaxes and activations are left out, a weight
is read once a run, and of the embedding only the rows of the tokens. Shapes: B slots or cells, S tokens of a cell
(`<cls>` and its genes), P prompt, C tokens in use, H query heads, K key/value heads, D head width, d model width, f
feed-forward width, m memory width, V vocabulary, L layers, U layers from the first cross-attention up, X
cross-attentions; w bytes of a weight, o of one outside the decoder's layers (head and encoder stay in 8 bits where the
layers have 4), a bytes of a number in caches and of a memory as the encoder writes it, b bytes of a number of the
memory that steps read. A multiply or an add is one operation; state operations are those of them that are not done in
the arithmetic of the weights.

====================  ==================================================================================
layer weights         d (H + 2K) D + H D d + 3 d f
cross weights         2 d H D, and 2 H D m that the latent form absorbs
step weights          L layers, X crosses, d V for the head
step bytes            w (L layers + X crosses) + o d V + B (w d + a · cache + b · attended)
  cache               2 L K D C
  attended            X S m (latent), X 2 K S D (materialised)
step operations       B (2 · step weights + 4 L H D C + 4 X H S i), i = m (latent) or D (materialised)
  state               B (4 X H D m (latent) + 4 L H D C)
prompt operations     B (2 P U layer + 2 P X cross + X · seen + 2 U H D P² + 2 d V)
  seen                4 S m K D + 4 P H S D (materialised), or 4 P H S m + 4 P H D m where cheaper (latent)
  state               B 2 U H D P²
prompt bytes          w (U layer + X cross + X 2 m K D) + o d V + a B (S m + 2 L K D P)
encoder operations    B (2 S (N (4 m² + 2 m g) + m² + m) + 4 N S² m), N layers of feed-forward width g
  state               B 4 N S² m
encoder bytes         o (N (4 m² + 2 m g) + m² + m + S m) + B (13 S + a S m)
====================  ==================================================================================

The layers below the first cross-attention are the same for all cells, so a prompt run need not touch them. A cell's
tokens come in as id (8 bytes), value (4) and mask (1); the rows of the gene embedding, which cells may share, count
once a run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cellscribe.engine.bench.precision import Precision, precision_named
from cellscribe.engine.bench.work import Work
from cellscribe.engine.bundle.manifest import Manifest
from cellscribe.engine.bundle.shapes import CrossShape, DecoderShape, EncoderShape
from cellscribe.engine.errors import BundleError

_TOKEN_BYTES = 13


@dataclass(frozen=True)
class Cost:
    """Work of a bundle's graphs in one precision.

    `cache_bytes`, the processor's last cache, keeps the bound honest in the latent form: where the memories of all
    slots fit into it they are counted once a step, not once a layer.
    """

    encoder: EncoderShape
    decoder: DecoderShape | None
    cross: CrossShape | None
    prompt_len: int
    precision: Precision
    cache_bytes: int = 0
    shares_prefix: bool = True

    @classmethod
    def of(cls, manifest: Manifest, precision: str, cache_bytes: int = 0) -> Cost:
        """Read the sizes of a manifest."""
        prompt_len = len(manifest.prompt.token_ids) if manifest.prompt else 0
        found = precision_named(precision)
        return cls(manifest.encoder_shape, manifest.decoder, manifest.cross_attention, prompt_len, found, cache_bytes)

    def with_whole_prompt(self) -> Cost:
        """Return the cost of an engine that runs the whole prompt for every cell."""
        return replace(self, shares_prefix=False)

    def materialised(self) -> Cost:
        """Return the cost of an engine that keeps cross keys and values of every cell."""
        return replace(self, cross=replace(self._texts[1], form="materialised"))

    @property
    def _texts(self) -> tuple[DecoderShape, CrossShape]:
        if self.decoder is None or self.cross is None:
            raise BundleError("the bundle holds an encoder alone, so that its steps have no cost; choose another.")
        return self.decoder, self.cross

    @property
    def layer_weights(self) -> int:
        """Weights of a decoder layer."""
        shape, _ = self._texts
        heads = shape.n_heads * shape.d_head
        return 2 * shape.d_model * (heads + shape.n_kv_heads * shape.d_head) + 3 * shape.d_model * shape.d_ffn

    @property
    def cross_weights(self) -> int:
        """Query and output weights of a cross-attention."""
        shape, cross = self._texts
        return 2 * shape.d_model * cross.n_heads * cross.d_head

    @property
    def absorbed_weights(self) -> int:
        """Key and value weights that the latent form applies to the query and to the mixture."""
        _, cross = self._texts
        return 2 * cross.n_heads * cross.d_head * cross.d_memory if cross.form == "latent" else 0

    @property
    def step_weights(self) -> int:
        """Weights that a step reads."""
        shape, cross = self._texts
        crosses = cross.n_layers * (self.cross_weights + self.absorbed_weights)
        return shape.n_layers * self.layer_weights + crosses + shape.d_model * shape.vocab_size

    @property
    def _step_weight_bytes(self) -> float:
        shape, _ = self._texts
        head = shape.d_model * shape.vocab_size
        return (self.step_weights - head) * self.precision.weight_bytes + head * self.precision.outer_bytes

    @property
    def encoder_weights(self) -> int:
        """Weights that the encoder reads, but for the rows of its gene embedding."""
        shape, m = self.encoder, self.encoder.d_model
        return shape.n_layers * (4 * m * m + 2 * m * shape.d_ffn) + m * m + m

    @property
    def fits_in_cache(self) -> bool:
        """Whether the processor's last cache may hold the weights, so that memory bandwidth is no ceiling."""
        outer = self.encoder_weights * self.precision.outer_bytes
        return (self._step_weight_bytes if self.decoder else outer) <= self.cache_bytes

    def step(self, num_slots: int, tokens_in_use: float, memory_len: int) -> Work:
        """One token for each slot, C = `tokens_in_use` of them in each cache."""
        (shape, cross), precision = self._texts, self.precision
        is_latent = cross.form == "latent"
        attended = num_slots * self._attended(memory_len) * precision.memory_bytes
        memories = num_slots * memory_len * cross.d_memory * precision.memory_bytes
        if is_latent and memories <= self.cache_bytes:
            attended = memories
        cache = self._cache(tokens_in_use) * precision.state_bytes + shape.d_model * precision.weight_bytes
        inner = cross.d_memory if is_latent else cross.d_head
        crosses = 4 * cross.n_layers * cross.n_heads * memory_len * inner
        own = 4 * shape.n_layers * shape.n_heads * shape.d_head * tokens_in_use
        return Work(
            self._step_weight_bytes + attended + num_slots * cache,
            num_slots * (2 * self.step_weights + crosses + own),
            num_slots * (2 * cross.n_layers * self.absorbed_weights + own),
        )

    def prompt(self, num_cells: int, memory_len: int) -> Work:
        """The prompts of cells that are admitted together, up to their first token."""
        (shape, cross), P, S = self._texts, self.prompt_len, memory_len
        layers = shape.n_layers - shape.n_lower if self.shares_prefix else shape.n_layers
        head, made = shape.d_model * shape.vocab_size, 2 * cross.d_memory * cross.n_kv_heads * cross.d_head
        wide = cross.n_heads * cross.d_head
        latent = 4 * P * cross.n_heads * S * cross.d_memory + 4 * P * wide * cross.d_memory
        kept = 2 * S * made + 4 * P * S * wide
        seen = min(latent, kept) if cross.form == "latent" else kept
        products = 2 * P * (layers * self.layer_weights + cross.n_layers * self.cross_weights)
        own = 2 * layers * shape.n_heads * shape.d_head * P**2
        weights = layers * self.layer_weights + cross.n_layers * (self.cross_weights + made)
        read = weights * self.precision.weight_bytes + head * self.precision.outer_bytes
        state = S * cross.d_memory + self._cache(P)
        return Work(
            read + num_cells * state * self.precision.state_bytes,
            num_cells * (products + cross.n_layers * seen + own + 2 * head),
            num_cells * own,
        )

    def encode(self, num_cells: int, memory_len: int) -> Work:
        """Cells through the encoder in one run."""
        shape, S, m, precision = self.encoder, memory_len, self.encoder.d_model, self.precision
        weights = self.encoder_weights
        each = _TOKEN_BYTES * S + precision.state_bytes * S * m
        own = 4 * shape.n_layers * S * S * m
        flops = num_cells * (2 * S * weights + own)
        return Work((weights + S * m) * precision.outer_bytes + num_cells * each, flops, num_cells * own)

    def text(self, num_slots: int, new_tokens: int, memory_len: int) -> Work:
        """Whole texts in all slots: the prompts, then `new_tokens` - 1 steps."""
        steps = self.step(num_slots, self.mean_tokens_in_use(new_tokens), memory_len).times(new_tokens - 1)
        return self.prompt(num_slots, memory_len) + steps

    def mean_tokens_in_use(self, new_tokens: int) -> float:
        """Tokens that a step of a text finds in its cache, its own included, in the mean: P + T / 2."""
        return self.prompt_len + new_tokens / 2

    def _attended(self, memory_len: int) -> int:
        _, cross = self._texts
        if cross.form == "latent":
            return cross.n_layers * memory_len * cross.d_memory
        return cross.n_layers * 2 * cross.n_kv_heads * memory_len * cross.d_head

    def _cache(self, tokens: float) -> float:
        shape, _ = self._texts
        return 2 * shape.n_layers * shape.n_kv_heads * shape.d_head * tokens
