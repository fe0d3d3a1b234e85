"""Bundles that read ranks on a device that keeps states, keys and texts: how work is cut into runs.

Runs have one of few shapes, which follow from a cell's or a text's own length: what a row gives does not depend on
which others are in work.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.base import Array
from cellscribe.engine.backends.match import CellState, Floats, Ints, TextStates, matching_probability, rank_shape
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.load import ENCODER, KEYS, MATCH, TEXT
from cellscribe.engine.bundle.shapes import BertShape
from cellscribe.engine.errors import BundleError

GENES_STEP, TOKENS_STEP = 256, 16  # lengths are filled up to a multiple of these
CELLS, TEXTS = 8, 32  # rows of a run, always as many
_ROWS = 2048  # tokens of texts that are matched in one run
_WINDOW = 64  # cells that are looked at for runs of one length


class MatchDevice(Protocol):
    """What holds arrays, which look like NumPy's to whoever reads `shape`, and runs graphs on them."""

    @property
    def cells(self) -> int:
        """Cells of a run."""

    @property
    def texts(self) -> int:
        """Texts of a run, at most."""

    def check_cell(self, num_tokens: int) -> None:
        """Raise a BackendError where a cell is too long for it."""

    def check_text(self, num_tokens: int) -> None:
        """Raise a BackendError where a text is too long for it."""

    def running(self) -> AbstractContextManager[Any]:
        """Work with the device; what fails there becomes one sentence."""

    def empty(self, graph: str, name: str, shape: tuple[int, ...]) -> Any:
        """Allocate an input or output of a graph."""

    def upload(self, array: Array) -> Any:
        """Copy an array to the device."""

    def read(self, array: Any) -> Array:
        """Copy an array to the host."""

    def rows(self, array: Any, start: int, stop: int) -> Any:
        """Return rows start..stop-1 of an array, in place."""

    def copy(self, target: Any, source: Any) -> None:
        """Copy an array of the device into another one."""

    def run(self, graph: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """Run a graph of the bundle."""


@dataclass(frozen=True, eq=False)
class KeptStates:
    """States of a cell on the device, [1, S, m] filled up, and how many are its own."""

    array: Any
    length: int
    device: MatchDevice

    def __len__(self) -> int:
        return self.length

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        """Copy its own to the host, [S, m]."""
        found = self.device.read(self.array)[0, : self.length]
        return found.astype(dtype or found.dtype, copy=False)


@dataclass(frozen=True)
class _Chunk:
    """Texts that are matched in one run: where their results go, and what it is given."""

    places: Ints
    start: Any
    mask: Any


class DeviceMatch:
    """Encodes and matches on a device; a base of backends."""

    def __init__(self, bundle: Bundle, device: MatchDevice) -> None:
        self.bundle, self.shape, self._device = bundle, rank_shape(bundle), device
        self._keys_of: tuple[CellState, dict[str, Any]] | None = None
        self._chunks_of: tuple[TextStates, bytes, list[_Chunk]] | None = None

    def encode_cells(self, cells: Iterable[Ints], *, keeps_states: bool = False) -> Iterator[CellState]:
        """Encode cells in the order given; of a window of them, those of a like length share runs."""
        left, size = iter(cells), self._device.cells
        while window := list(islice(left, _WINDOW)):
            for one in window:
                self._device.check_cell(len(one))
            found: dict[int, CellState] = {}
            groups = by_length([len(one) for one in window], GENES_STEP, self.shape.cell.max_positions)
            for length, whose in groups.items():
                for at in range(0, len(whose), size):
                    some = whose[at : at + size]
                    found |= zip(some, self._encode([window[i] for i in some], length, keeps_states), strict=True)
            yield from (found[place] for place in range(len(window)))

    def encode_texts(self, texts: Sequence[Ints]) -> TextStates:
        """Encode texts, those of a like length together; where matching begins stays on the device."""
        text, device = self._text, self._device
        size = min(TEXTS, device.texts)
        lengths = np.array([len(one) for one in texts], np.int64)
        for length in lengths.tolist():
            device.check_text(length)
        vectors = np.zeros((len(texts), self.shape.d_vector), np.float32)
        starts: dict[int, Any] = {}
        for length, whose in by_length(lengths.tolist(), TOKENS_STEP, text.max_positions).items():
            for at in range(0, len(whose), size):
                some = whose[at : at + size]
                with device.running():
                    given = self._padded([texts[i] for i in some], length, size)
                    start = device.empty(TEXT, "start", (size, length, text.d_model))
                    vector = device.empty(TEXT, "vector", (size, self.shape.d_vector))
                    device.run(TEXT, given, {"vector": vector, "start": start})
                    vectors[some] = device.read(vector)[: len(some)]
                starts |= {place: device.rows(start, row, row + 1) for row, place in enumerate(some)}
        return TextStates(vectors, lengths, [starts[place] for place in range(len(texts))])

    def match(self, cell: CellState, texts: TextStates, chosen: Ints) -> Floats:
        """Match texts with a cell; its keys and values are kept, as its texts may come in parts."""
        if cell.states is None:
            raise ValueError("a cell without states cannot be matched")
        found, device = np.zeros(len(chosen), np.float32), self._device
        if not len(chosen):
            return found
        with device.running():
            given = self._keys_values(cell)
            for chunk in self._chunks(texts, chosen):
                logits = device.empty(MATCH, "logits", (*chunk.start.shape[:2], 2))
                device.run(MATCH, {"start": chunk.start, "text_mask": chunk.mask, **given}, {"logits": logits})
                found[chunk.places] = matching_probability(device.read(logits)[0])[: len(chunk.places)]
        return found

    @property
    def _text(self) -> BertShape:
        if self.shape.text is None:
            raise BundleError(f"the bundle {self.bundle.name} has no texts; use embed, or choose a LangCell bundle.")
        return self.shape.text

    def _encode(self, cells: list[Ints], length: int, keeps_states: bool) -> list[CellState]:
        """Encode up to a run's number of cells, filled up to a length."""
        device, size = self._device, self._device.cells
        with device.running():
            states = device.empty(ENCODER, "states", (size, length, self.shape.cell.d_model))
            vector = device.empty(ENCODER, "vector", (size, self.shape.d_vector))
            device.run(ENCODER, self._padded(cells, length, size), {"states": states, "vector": vector})
            vectors = device.read(vector)
        if not keeps_states:
            return [CellState(one) for one in vectors[: len(cells)]]
        kept = [KeptStates(device.rows(states, i, i + 1), len(one), device) for i, one in enumerate(cells)]
        return [CellState(one, state) for one, state in zip(vectors, kept, strict=False)]

    def _padded(self, rows: Sequence[Ints], length: int, num: int) -> dict[str, Any]:
        """Tokens and mask of a run; rows that are missing repeat the last one."""
        tokens, mask = np.zeros((num, length), np.int64), np.zeros((num, length), bool)
        for place in range(num):
            row = rows[min(place, len(rows) - 1)]
            tokens[place, : len(row)], mask[place, : len(row)] = row, True
        return {"tokens": self._device.upload(tokens), "mask": self._device.upload(mask)}

    def _keys_values(self, cell: CellState) -> dict[str, Any]:
        """Keys and values of a cell; those of the last one are kept."""
        if self._keys_of is None or self._keys_of[0] is not cell:
            self._keys_of = None  # frees the other's before there are new ones
            text, states = self._text, cell.states
            assert isinstance(states, KeptStates)
            length = states.array.shape[1]
            shape = (1, text.n_heads, length, text.d_model // text.n_heads)
            names = [f"{part}.{i}" for i in range(text.n_layers) for part in ("key", "value")]
            found = {name: self._device.empty(KEYS, name, shape) for name in names}
            self._device.run(KEYS, {"states": states.array}, found)
            mask = self._device.upload(np.arange(length)[None] < states.length)
            self._keys_of = (cell, {**found, "memory_mask": mask})
        return self._keys_of[1]

    def _chunks(self, texts: TextStates, chosen: Ints) -> list[_Chunk]:
        """Texts in runs; the last choice's are kept, as most cells are matched with the same texts."""
        asked = chosen.tobytes()
        if self._chunks_of is None or self._chunks_of[0] is not texts or self._chunks_of[1] != asked:
            self._chunks_of = None
            self._chunks_of = (texts, asked, list(self._cut(texts, chosen)))
        return self._chunks_of[2]

    def _cut(self, texts: TextStates, chosen: Ints) -> Iterator[_Chunk]:
        text, device = self._text, self._device
        lengths = texts.lengths[chosen].tolist()
        for length, whose in by_length(lengths, TOKENS_STEP, text.max_positions).items():
            size = max(1, min(device.texts, _ROWS // length))
            for at in range(0, len(whose), size):
                some = whose[at : at + size]
                start, mask = device.empty(MATCH, "start", (1, size, length, text.d_model)), np.zeros((1, size, length))
                for row in range(size):
                    place = some[min(row, len(some) - 1)]
                    device.copy(device.rows(start[0], row, row + 1), texts.starts[chosen[place]])
                    mask[0, row, : lengths[place]] = 1
                yield _Chunk(np.array(some, np.int64), start, device.upload(mask.astype(bool)))


def by_length(lengths: list[int], step: int, most: int) -> dict[int, list[int]]:
    """Group places by length, filled up to a multiple of `step` but not beyond `most`."""
    found: dict[int, list[int]] = {}
    for place, length in enumerate(lengths):
        found.setdefault(max(length, min(-(-length // step) * step, most)), []).append(place)
    return dict(sorted(found.items()))
