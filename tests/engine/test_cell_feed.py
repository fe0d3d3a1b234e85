from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cellscribe.engine.backends.base import Encoded
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.cells import CellTokenizer, TokenBatch, open_cells
from cellscribe.engine.describe import CellFeed
from cellscribe.engine.packaged import packaged_bundle, packaged_cells

CELLS = 20


class Encoder:
    """Makes up embeddings of very different sizes; some of the cells' are not finite."""

    cells_ahead = 0

    def __init__(self, width: int, spoilt: dict[int, float]) -> None:
        self._draws, self._width, self._spoilt = np.random.default_rng(3), width, spoilt
        self.cells: list[np.ndarray] = []

    def encode(self, batch: TokenBatch) -> Encoded:
        sizes = 10.0 ** self._draws.uniform(-4, 4, (batch.n_cells, 1))
        cell = (self._draws.normal(size=(batch.n_cells, self._width)) * sizes).astype(np.float32)
        for i in range(batch.n_cells):
            if len(self.cells) in self._spoilt:
                cell[i, len(self.cells) % self._width] = self._spoilt[len(self.cells)]
            self.cells.append(cell[i])
        return Encoded(np.zeros((*batch.mask.shape, self._width), np.float32), cell)


@pytest.mark.parametrize("width", [3, 64, 512])
def test_embeddings_are_the_bits_of_a_norm_of_each(width: int) -> None:
    bundle = open_bundle(packaged_bundle())
    manifest = SimpleNamespace(encoder_shape=SimpleNamespace(d_model=width))
    shaped: Any = SimpleNamespace(vocabulary=bundle.vocabulary, manifest=manifest)
    encoder = Encoder(width, {2: np.nan, 9: np.inf, 17: -np.inf})
    with open_cells(packaged_cells()) as source:
        tokenizer = CellTokenizer(bundle.manifest.cells, bundle.vocabulary, source)
        feed = CellFeed(encoder, shaped, tokenizer, source, np.arange(CELLS))  # type: ignore[arg-type]
        asked = [subject.index for subject, _, _ in feed]
        names = source.obs_names
    assert asked == [i for i in range(CELLS) if i not in (2, 9, 17)]
    for i in asked:
        assert (feed.embeddings[i] == encoder.cells[i] / np.linalg.norm(encoder.cells[i])).all()
    assert sorted(feed.failures) == [2, 9, 17]
    assert all(np.isnan(feed.embeddings[i]).all() for i in feed.failures)
    assert {one.status for one in feed.failures.values()} == {"failed: its embedding is not finite"}
    assert [feed.failures[i].cell_id for i in (2, 9, 17)] == [names[i] for i in (2, 9, 17)]
