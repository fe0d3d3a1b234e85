"""The cells on which an export is checked: real ones where the vocabulary knows them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellscribe.engine.cells import CellTokenizer, GeneVocabulary, TokenBatch, open_cells
from cellscribe.engine.errors import InputError
from cellscribe.engine.keyed import stream_keys, uniforms
from cellscribe.engine.packaged import packaged_cells
from cellscribe.export.parts import Parts

_COUNT = 4


@dataclass(frozen=True)
class ReferenceCells:
    """Tokenised cells and a word on where they come from."""

    batch: TokenBatch
    source: str


def packaged_genes() -> tuple[str, ...]:
    """Return the gene names of the packaged cells."""
    with open_cells(packaged_cells()) as source:
        return tuple(str(name) for name in source.var_names)


def reference_cells(parts: Parts, cells: Path | None) -> ReferenceCells:
    """Tokenise the first usable cells of a file as the bundle will.

    Without a file the packaged cells serve; should the vocabulary not know their genes, drawn tokens do, and the
    report says so.

    Raises
    ------
    InputError
        When `cells` was given and cannot be used.
    """
    path = cells or packaged_cells()
    vocabulary = GeneVocabulary(parts.tokens, None, parts.input_genes)
    try:
        with open_cells(path) as source:
            tokenizer = CellTokenizer(parts.cells, vocabulary, source)
            for batch in tokenizer.batches(rows=np.arange(min(source.n_cells, 4 * _COUNT)), batch_cells=_COUNT):
                if len(batch.rows):
                    return ReferenceCells(batch, f"real cells of {path.name}")
    except InputError:
        if cells is not None:
            raise
    else:
        if cells is not None:
            raise InputError(
                f"none of the first cells of {path} can be tokenised; give other cells to check parity on."
            )
    return ReferenceCells(_drawn(parts), "drawn tokens, as the vocabulary does not know the packaged cells' genes")


def _drawn(parts: Parts) -> TokenBatch:
    length = min(parts.cells.num_genes, len(parts.tokens) - 2, 256) + 1
    keys = stream_keys(0, np.arange(_COUNT, dtype=np.uint64))[:, None]
    draws = uniforms(keys, np.arange(length))
    cls = parts.tokens.index("<cls>")
    others = np.array([i for i, t in enumerate(parts.tokens) if not t.startswith("<")], dtype=np.int64)
    genes = np.tile(np.concatenate(([cls], others[: length - 1])), (_COUNT, 1))
    length = genes.shape[1]
    values = np.floor(draws[:, :length] * max(parts.cells.n_bins, 2)).astype(np.float32)
    values[:, 0] = parts.cells.cls_value
    return TokenBatch(
        rows=np.arange(_COUNT),
        cell_ids=tuple(f"drawn {i}" for i in range(_COUNT)),
        genes=genes,
        values=values,
        mask=np.ones(genes.shape, bool),
        columns=np.full(genes.shape, -1, dtype=np.int64),
        failures=(),
    )
