"""Bundles that read ranks in the native CPU library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cellscribe.engine.backends.cpu.backend import in_memory, native_words, open_library
from cellscribe.engine.backends.cpu.bert_weights import BertWeights
from cellscribe.engine.backends.match import CellState, Floats, Ints, TextStates, matching_probability, rank_shape
from cellscribe.engine.backends.sessions import default_threads
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.load import ENCODER, KEYS, MATCH, TEXT
from cellscribe.engine.bundle.onnx_weights import onnx_weights
from cellscribe.engine.errors import BundleError
from cellscribe.kernels.cpu_bert import EARLY, FIRST, LATE, NativeBert, NativeMemory
from cellscribe.kernels.cpu_library import Kind, PackedWeight

_ROWS = 2048  # tokens of texts that are matched at a time: their states stay in the last cache


@dataclass(frozen=True, eq=False)
class _Text:
    """The text encoder that also looks at cells, the projection of its vectors, and the head."""

    weights: BertWeights
    native: NativeBert
    projection: PackedWeight
    head: PackedWeight


class CpuMatch:
    """Runs a bundle that reads ranks in the native library.

    Weights are multiplied as the bundle stores them and sums are float32; attention of a bundle of bytes runs in bf16
    where the machine multiplies it. What a cell, a text or both get does not depend on threads or on others.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None, instruction_set: str | None = None) -> None:
        self.bundle, self.shape = bundle, rank_shape(bundle)
        self.threads = threads or default_threads()
        self._library = open_library(self.threads, instruction_set)
        coarse = bundle.manifest.precision == "int8" and self._library.instruction_set == "avx512bf16"
        self._attention = Kind.BRAIN if coarse else Kind.FLOAT
        self._memory: NativeMemory | None = None
        self._remembered: CellState | None = None

    @property
    def device(self) -> str:
        """Device, library and threads in words."""
        return native_words(self._library, self.threads)

    def encode_cells(self, cells: Iterable[Ints], *, keeps_states: bool = False) -> Iterator[CellState]:
        """Encode cells one after the other."""
        weights, native, projection = self._cell
        spec = self.bundle.manifest.ranks
        assert spec is not None
        is_mean = spec.pooling == "mean"
        for tokens in cells:
            x = weights.embed(tokens, np.arange(len(tokens)))
            needs_all = keeps_states or is_mean
            with in_memory("a cell"):
                states = native.run(x, np.array([0, len(tokens)]), 0 if needs_all else FIRST)
            vector = states.mean(0, dtype=np.float64).astype(np.float32) if is_mean else states[0]
            yield CellState(
                vector if projection is None else _unit(projection(vector[None]))[0], states if keeps_states else None
            )

    def encode_texts(self, texts: Sequence[Ints]) -> TextStates:
        """Encode texts, some of them at a time."""
        lengths = np.array([len(one) for one in texts], np.int64)
        vectors, starts = np.zeros((len(texts), self.shape.d_vector), np.float32), list[Floats]()
        for some in _in_parts(np.arange(len(texts)), lengths):
            tokens = np.concatenate([texts[i] for i in some.tolist()])
            x = self._text.weights.embed(tokens, np.concatenate([np.arange(n) for n in lengths[some].tolist()]))
            edges = np.concatenate(([0], np.cumsum(lengths[some])))
            with in_memory("texts"):
                early = self._text.native.run(x, edges, EARLY)
                last = self._text.native.run(early, edges, LATE | FIRST)
            starts += np.split(early, edges[1:-1])
            vectors[some] = _unit(self._text.projection(last))
        return TextStates(vectors, lengths, starts)

    def match(self, cell: CellState, texts: TextStates, chosen: Ints) -> Floats:
        """Match texts with a cell, some of them at a time."""
        if cell.states is None:
            raise ValueError("a cell without states cannot be matched")
        found = np.zeros(len(chosen), np.float32)
        if not len(chosen):
            return found
        if self._remembered is not cell:
            self._remembered = None
            with in_memory("the keys and values of a cell"):
                self._memory = self._text.native.remember(cell.states, self._memory)
            self._remembered = cell
        lengths = texts.lengths[chosen]
        for some in _in_parts(np.arange(len(chosen)), lengths):
            x = np.concatenate([texts.starts[i] for i in chosen[some].tolist()])
            edges = np.concatenate(([0], np.cumsum(lengths[some])))
            with in_memory("texts"):
                states = self._text.native.run(x, edges, LATE | FIRST, self._memory)
            found[some] = matching_probability(self._text.head(states))
        return found

    @cached_property
    def _cell(self) -> tuple[BertWeights, NativeBert, PackedWeight | None]:
        source = onnx_weights(self.bundle.path(ENCODER))
        weights = BertWeights([source], "encoder", self._library, self.shape.cell, 0, self._attention)
        is_projected = source.get("projection.bias") is not None
        projection = weights.linear("projection", self.shape.cell.d_model) if is_projected else None
        return weights, NativeBert(self._library, weights.shape), projection

    @cached_property
    def _text(self) -> _Text:
        sizes = self.shape.text
        if sizes is None:
            raise BundleError(f"the bundle {self.bundle.name} has no texts; use embed, or choose a LangCell bundle.")
        sources = [onnx_weights(self.bundle.path(name)) for name in (TEXT, MATCH, KEYS)]
        weights = BertWeights(sources, "text", self._library, sizes, self.shape.cell.d_model, self._attention)
        projection, head = (weights.linear(name, sizes.d_model) for name in ("projection", "head"))
        return _Text(weights, NativeBert(self._library, weights.shape), projection, head)


def _in_parts(places: Ints, lengths: Ints) -> Iterator[Ints]:
    """Cut places [R] of sequences with these lengths so that a part has few tokens, and one sequence at least."""
    first, total = 0, 0
    for i, length in enumerate(lengths.tolist()):
        if total and total + length > _ROWS:
            yield places[first:i]
            first, total = i, 0
        total += length
    if first < len(places):
        yield places[first:]


def _unit(x: Floats) -> Floats:
    """Scale rows [N, p] to length 1."""
    wide = x.astype(np.float64)
    found: Floats = (wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    return found
