"""Bundles that read ranks of genes, for a service."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cellscribe.engine.backends.match import CellState, TextStates
from cellscribe.engine.cells import CellSource
from cellscribe.engine.errors import BundleError, UsageError
from cellscribe.engine.labels import Labelled, Labels, with_definitions
from cellscribe.engine.match_model import MatchModel
from cellscribe.engine.matching.zero_shot import ZeroShot, label_scores
from cellscribe.engine.rank_model import label_texts, labelled_scores
from cellscribe.engine.ranks import RankTokenizer
from cellscribe.engine.service.cell_files import CellFile
from cellscribe.engine.service.families.base import (
    CellWish,
    Embedding,
    Item,
    Labelling,
    ReadyCells,
    ReadyOrder,
    Tick,
    Wish,
    Work,
    Written,
)

_LISTS = 8  # of labels whose texts stay encoded
_NOT_FINITE = "its embedding is not finite"


class Ranks:
    """The families langcell and geneformer."""

    speaker = None

    def __init__(self, model: MatchModel) -> None:
        self._ranks, self.width = model.ranks, model.ranks.width
        self.tasks: tuple[str, ...] = ("annotate", "embed") if model.ranks.shape.text else ("embed",)
        self._texts: OrderedDict[Labels, TextStates] = OrderedDict()

    def read(self, source: CellSource, rows: Sequence[int], wish: Wish, kept: dict[str, Any]) -> ReadyCells:
        """Make tokens of cells, as :meth:`MatchModel.annotate` and ``embed`` do."""
        work = self._work(wish)
        tokenizer = self._tokenizer(source, kept)
        found, lost = dict[int, Any](), dict[int, str]()
        for batch in tokenizer.batches(np.asarray(rows, np.int64)):
            lost |= dict(batch.failures)
            found |= {row: batch.cell(i) for i, row in enumerate(batch.rows.tolist())}
        items = [Item(str(source.obs_names[row]), found.get(row), lost.get(row, "")) for row in rows]
        return ReadyCells(items, work, self.genes(source, kept))

    def genes(self, source: CellSource, kept: dict[str, Any]) -> dict[str, object]:
        """Return how many of a source's genes the model knows."""
        report = self._tokenizer(source, kept).report
        unknown = report.n_file_genes - report.n_matched
        return {"known": report.n_matched, "unknown": unknown, "sentence": report.sentence()}

    def run(self, work: Work, items: Sequence[Item], tick: Tick) -> list[Any]:
        """Return vectors, or the scores of labels; of a cell that fails, why."""
        if isinstance(work, Embedding):
            none = np.full(self.width, np.nan, np.float32)
            return [none if isinstance(one, str) else one.vector for one in self._states(items, tick, False)]
        assert isinstance(work, Labels)
        texts = self._encoded(work)
        found: list[Any] = []
        for state in self._states(items, tick, True):
            if isinstance(state, str) or not np.isfinite(state.vector).all():
                found.append(state if isinstance(state, str) else _NOT_FINITE)
                continue
            matching = self._ranks.matching(state, texts)
            found.append(label_scores(state.vector, texts.vectors, matching, ZeroShot()))
        return found

    def labelled(self, wish: Labelling, items: Sequence[Item], found: Sequence[Any]) -> tuple[list[str], Labelled]:
        """Return the status of every cell, and the labels."""
        labels = wish.labels
        assert labels is not None
        scored = {i: one for i, one in enumerate(found) if not isinstance(one, str)}
        chosen = tuple(labels.names[scored[i].best] if i in scored else "" for i in range(len(found)))
        status = [f"failed: {one}" if isinstance(one, str) else "ok" for one in found]
        return status, labelled_scores(labels, chosen, scored)

    def order(self, wish: CellWish) -> ReadyOrder:
        """Raise BundleError: the family writes no cells."""
        raise BundleError(f"the bundle {self._ranks.bundle.name} writes no cells; choose one of c2s or instructcell.")

    def written(self, order: ReadyOrder, found: Sequence[Any], like: CellFile) -> Written:
        """Raise BundleError: the family writes no cells."""
        raise BundleError(f"the bundle {self._ranks.bundle.name} writes no cells; choose one of c2s or instructcell.")

    def _work(self, wish: Wish) -> Work:
        if isinstance(wish, Embedding):
            return wish
        assert isinstance(wish, Labelling)
        if wish.labels is None:
            raise UsageError(f"the bundle {self._ranks.bundle.name} chooses from labels; give some.")
        return with_definitions(wish.labels, False)

    def _tokenizer(self, source: CellSource, kept: dict[str, Any]) -> RankTokenizer:
        """Match a source's genes, once."""
        if "tokenizer" not in kept:
            spec = self._ranks.bundle.manifest.ranks
            assert spec is not None
            kept["tokenizer"] = RankTokenizer(spec, self._ranks.bundle.vocabulary, source)
        found: RankTokenizer = kept["tokenizer"]
        return found

    def _encoded(self, labels: Labels) -> TextStates:
        """Encode the texts of labels, once for those that come again."""
        if labels not in self._texts:
            self._texts[labels] = self._ranks.encode_texts(label_texts(labels))
        self._texts.move_to_end(labels)
        while len(self._texts) > _LISTS:
            self._texts.popitem(last=False)
        return self._texts[labels]

    def _states(self, items: Sequence[Item], tick: Tick, keeps_states: bool) -> Iterator[CellState | str]:
        """Yield the state of every cell, or why it has none."""
        good = (one.payload for one in items if not one.failure)
        states = self._ranks.runtime.encode_cells(good, keeps_states=keeps_states)
        for i, one in enumerate(items):
            tick(i, 0)
            yield one.failure or next(states)
