"""How fast cells are read from a file and turned into tokens; no backend takes part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import anndata as ad

from cellscribe.engine.bench.case import Case, Group
from cellscribe.engine.bench.clock import Call, timed
from cellscribe.engine.bench.contender import Contender
from cellscribe.engine.bench.precision import NO_PRECISION
from cellscribe.engine.bench.row import Row
from cellscribe.engine.bench.settings import Settings
from cellscribe.engine.cells import CellSource, CellTokenizer, open_cells

_BATCH_CELLS = 32
_FILE_NOTE = "opening the file in a process of its own, and matching its genes, included"


def groups(contenders: Sequence[Contender], settings: Settings) -> Iterator[Group]:
    """The file from its opening on, and the same cells from memory, which leaves what grows with their number."""
    for one in contenders[:1]:
        with open_cells(one.cells_file) as source:
            num_cells = source.n_cells
        from_file = Case(_row(one, "file to tokens", num_cells, (_FILE_NOTE,)), partial(_open_file, one))
        from_memory = Case(_row(one, "cells in memory to tokens", num_cells, ()), partial(_open_memory, one))
        yield Group("reading", (from_file, from_memory))


def _row(one: Contender, what: str, num_cells: int, notes: tuple[str, ...]) -> Row:
    sizes = {"cells": num_cells, "memory_len": one.longest_memory}
    return Row("reading", what, "cellscribe", sizes, NO_PRECISION, 1, "cells", num_cells, notes=notes)


def _open_file(one: Contender) -> Call:
    def read() -> None:
        with open_cells(one.cells_file) as source:
            _read_all(_tokenizer(one, source))

    return timed(read)


def _open_memory(one: Contender) -> Call:
    tokenizer = _tokenizer(one, open_cells(ad.read_h5ad(one.cells_file)))
    return timed(lambda: _read_all(tokenizer))


def _tokenizer(one: Contender, source: CellSource) -> CellTokenizer:
    return CellTokenizer(one.bundle.manifest.cell_input, one.bundle.vocabulary, source)


def _read_all(tokenizer: CellTokenizer) -> None:
    for _ in tokenizer.batches(batch_cells=_BATCH_CELLS):
        pass
