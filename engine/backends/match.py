"""What every backend of bundles that read ranks does: encode cells, encode texts, match both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.shapes import RankShape
from cellscribe.engine.errors import BundleError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CellState:
    """One cell: its `vector` float32 [p], and `states` where they were asked for, [S, m] or what a device keeps."""

    vector: Floats
    states: Any = None


@dataclass(frozen=True, eq=False)
class TextStates:
    """L texts that were encoded once: `vectors` float32 [L, p], `lengths` int64 [L], and what matching begins with."""

    vectors: Floats
    lengths: Ints
    starts: Any

    def __len__(self) -> int:
        return len(self.lengths)


class MatchBackend(Protocol):
    """One runtime on one device. What it gives for a cell or a text does not depend on others that are in work."""

    bundle: Bundle

    @property
    def device(self) -> str:
        """Device, provider and threads in words."""
        ...

    def encode_cells(self, cells: Iterable[Ints], *, keeps_states: bool = False) -> Iterator[CellState]:
        """Encode cells, tokens int64 [S] each, in the order given; only matching needs their states."""
        ...

    def encode_texts(self, texts: Sequence[Ints]) -> TextStates:
        """Encode texts, tokens int64 [T] each."""
        ...

    def match(self, cell: CellState, texts: TextStates, chosen: Ints) -> Floats:
        """Return the probability that each of the `chosen` texts int64 [R] fits a cell, float32 [R].

        Parameters
        ----------
        cell
            One with its states.
        """
        ...


def rank_shape(bundle: Bundle) -> RankShape:
    """Return the sizes of a bundle that reads ranks; BundleError for another one."""
    shape = bundle.manifest.rank_shape
    if shape is None or bundle.manifest.ranks is None:
        raise BundleError(f"the bundle {bundle.name} reads no ranks of genes; choose one of the family langcell.")
    return shape


def matching_probability(logits: Floats) -> Floats:
    """Return the share of the second of two logits [..., 2] after a softmax, float32 [...]."""
    wide = logits.astype(np.float64)
    found: Floats = (1.0 / (1.0 + np.exp(wide[..., 0] - wide[..., 1]))).astype(np.float32)
    return found
