"""Bundles that follow instructions, for a service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cellscribe.engine.backends.instruct import EncoderPrompt, ExpressedCell
from cellscribe.engine.cells import CellSource
from cellscribe.engine.dialogue_model import DialogueModel
from cellscribe.engine.errors import BackendError
from cellscribe.engine.instruct.annotate import check_wishes, labelled_answers
from cellscribe.engine.instruct.cells import InstructCells
from cellscribe.engine.instruct.writer import Asked
from cellscribe.engine.instruct.writing import CellOrder, check_order, write_cells
from cellscribe.engine.keyed import cell_key
from cellscribe.engine.labels import Labelled
from cellscribe.engine.service.cell_files import CellFile
from cellscribe.engine.service.families.base import (
    CellWish,
    Embedding,
    Item,
    Labelling,
    Question,
    ReadyCells,
    ReadyOrder,
    TextWork,
    Tick,
    Wish,
    Work,
    Written,
)
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.types import MAX_NEW_TOKENS, Sampling

_WORDS = 64  # tokens of an answer, as the model writes them before a cell


@dataclass(frozen=True, eq=False)
class _Prompted:
    """A prompt without its cell's features, and the cell."""

    prompt: EncoderPrompt
    cell: ExpressedCell


class Instructions:
    """The family instructcell."""

    tasks: tuple[str, ...] = ("annotate", "generate", "chat")
    width = 0

    speaker = None

    def __init__(self, model: DialogueModel, num_slots: int) -> None:
        self._model, self._instruct, self._num_slots = model, model.instruct, num_slots

    def read(self, source: CellSource, rows: Sequence[int], wish: Wish, kept: dict[str, Any]) -> ReadyCells:
        """Make prompts and cells ready, as :meth:`DialogueModel.annotate` and ``ask`` do."""
        assert not isinstance(wish, Embedding)
        labels = wish.labels if isinstance(wish, Labelling) else None
        if isinstance(wish, Labelling):
            check_wishes(labels is not None, wish.scores, False)
        if labels is not None:
            self._instruct.label_trie(labels.names)
        cells = self._cells_of(source, kept)
        places, lost = np.asarray(rows, np.int64), dict[int, str]()
        asked = self._model.asked(wish.text if isinstance(wish, Question) else None)
        choices = None if labels is None else labels.names
        texts = self._instruct.instructions(source, places, asked, choices, lost)
        found: dict[int, ExpressedCell] = {}
        for batch in cells.batches(places):
            lost |= {place: why for row, why in batch.failures for place in np.flatnonzero(places == row).tolist()}
            found.update(zip(batch.rows.tolist(), batch.cells, strict=True))
        items = []
        for place, row in enumerate(places.tolist()):
            name = str(source.obs_names[row])
            if place in lost:
                items.append(Item(name, failure=lost[place]))
                continue
            prompt = self._instruct.prompts.encode(texts[place], has_cell=True)
            items.append(Item(name, _Prompted(prompt, found[row]), prompt_tokens=len(prompt.tokens)))
        return ReadyCells(items, _work(wish), self.genes(source, kept))

    def genes(self, source: CellSource, kept: dict[str, Any]) -> dict[str, object]:
        """Return how many of a source's genes the model reads."""
        cells = self._cells_of(source, kept)
        unknown = len(source.var_names) - cells.num_found
        return {"known": cells.num_found, "unknown": unknown, "sentence": f"{cells.sentence()}."}

    def run(self, work: Work, items: Sequence[Item], tick: Tick) -> list[Any]:
        """Write answers, or the cells of an order."""
        if isinstance(work, CellOrder):
            return [self._cells(work, tick)]
        assert isinstance(work, TextWork)
        lost = {i: one.failure for i, one in enumerate(items) if one.failure}
        longest = max((one.prompt_tokens for one in items), default=1) or 1
        labels = work.labels
        options = self._instruct.options(labels, work.all_labels, work.sampling, work.max_new_tokens, self._num_slots)
        return list(
            self._instruct.answers(
                [one.name for one in items],
                self._asked(items),
                longest,
                options,
                lost,
                lambda done, _, tokens: tick(done, tokens),
            )
        )

    def labelled(self, wish: Labelling, items: Sequence[Item], found: Sequence[Any]) -> tuple[list[str], Labelled]:
        """Return the status of every cell, and the labels."""
        described, labels = labelled_answers(found, wish.labels, wish.scores)
        return [one.status for one in described], labels

    def order(self, wish: CellWish) -> ReadyOrder:
        """Check an order, which is written as a whole."""
        most = _WORDS if wish.max_new_tokens is None else wish.max_new_tokens
        if most > MAX_NEW_TOKENS:
            raise RequestError(
                422, f"{most} new tokens are asked for; ask for {MAX_NEW_TOKENS} at most.", "max_new_tokens"
            )
        given = {"cell_type": wish.cell_type, "tissue": wish.tissue}
        fields = {name: text for name, text in given.items() if text is not None}
        number, draws = self._model.template_for(None)
        seed = wish.sampling.seed
        sampling = wish.sampling if wish.is_drawn else Sampling(seed=seed)
        order = _Order(wish.count, fields, None, number, draws, sampling, seed, False, most, self._num_slots)
        check_order(self._instruct, order)
        return ReadyOrder([Item("order")], order)

    def written(self, order: ReadyOrder, found: Sequence[Any], like: CellFile) -> Written:
        """Return the cells, which are whole already."""
        del order, like
        whole: Written = found[0]
        return whole

    def _cells_of(self, source: CellSource, kept: dict[str, Any]) -> InstructCells:
        """Match a source's genes, once."""
        if "cells" not in kept:
            kept["cells"] = InstructCells(source, self._instruct.genes, self._instruct.shapes.spec.target_sum)
        found: InstructCells = kept["cells"]
        return found

    def _asked(self, items: Sequence[Item]) -> Iterator[Asked]:
        """Put the cells' features into their prompts."""
        good = [i for i, one in enumerate(items) if not one.failure]
        features = self._instruct.runtime.read_cells([items[i].payload.cell for i in good]) if good else ()
        for i, mine in zip(good, features, strict=True):
            yield Asked(i, cell_key(items[i].name), replace(items[i].payload.prompt, features=mine))

    def _cells(self, order: CellOrder, tick: Tick) -> Written:
        try:
            cells, said = write_cells(self._instruct, order, lambda done, _, tokens: tick(0, tokens))
            return Written(cells, said, "counts")
        except BackendError as error:  # the model may answer without a cell, which is no failure of the device
            raise RequestError(500, str(error)) from error


class _Order(CellOrder):
    """An order that is no other's equal, so that it is a batch of its own."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def _work(wish: Labelling | Question) -> TextWork:
    if isinstance(wish, Question):
        return TextWork(wish.sampling, wish.max_new_tokens)
    if wish.labels is None:
        return TextWork(Sampling(), wish.max_new_tokens)
    return TextWork(Sampling(), wish.max_new_tokens, wish.labels.names, wish.scores)
