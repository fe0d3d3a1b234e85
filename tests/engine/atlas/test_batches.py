from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from atlas_cells import some_cells

from cellscribe.engine.atlas import batches
from cellscribe.engine.atlas.batches import token_batches
from cellscribe.engine.atlas.meter import Meter
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.cells import CellInput, CellTokenizer, GeneVocabulary, TokenBatch, open_cells
from cellscribe.engine.errors import InputError
from cellscribe.engine.packaged import packaged_bundle

RAGGED = CellInput("ragged", "all", 1200, cls_value=-2.0)


def tokenizer(spec: CellInput | None = None, count: int = 60) -> CellTokenizer:
    bundle = open_bundle(packaged_bundle())
    return CellTokenizer(spec or bundle.manifest.cell_input, bundle.vocabulary, open_cells(some_cells(count)))


def by_row(found: Iterator[TokenBatch]) -> dict[int, list[Any]]:
    return {
        int(row): [batch.genes[i][batch.mask[i]].tolist(), batch.values[i][batch.mask[i]].tolist()]
        for batch in found
        for i, row in enumerate(batch.rows)
    }


def test_cells_of_like_lengths_stand_side_by_side_and_are_what_they_were() -> None:
    made, meter = tokenizer(RAGGED), Meter()
    rows = np.arange(60)
    found = list(token_batches(made, made.source, rows, 8, meter))
    assert by_row(iter(found)) == by_row(made.batches(rows, 8))
    unsorted = Meter()
    for batch in made.batches(rows, 8):
        unsorted.places += batch.mask.size
        unsorted.real_places += int(batch.mask.sum())
    assert meter.real_places == unsorted.real_places
    assert 1 - meter.real_places / meter.places < 0.05 < 1 - unsorted.real_places / unsorted.places
    assert meter.seconds["tokenise"] > 0


@pytest.mark.parametrize("name", ["zheng68k", "he2020liver", "scp1884"])
def test_padding_of_real_cells_is_under_five_percent(shared: Path, name: str) -> None:
    """The genes that a cell expresses, all of them, in batches and windows of the size that a run takes."""
    cells = ad.read_h5ad(shared / "data" / f"{name}.h5ad")
    vocabulary = GeneVocabulary(("<pad>", *map(str, cells.var_names), "<cls>"), input_genes=tuple(cells.var_names))
    tokenizer = CellTokenizer(
        CellInput("ragged", "all", cells.n_vars + 1, cls_value=-2.0), vocabulary, open_cells(cells)
    )
    meter = Meter()
    real = sum(
        int(one.mask.sum()) for one in token_batches(tokenizer, tokenizer.source, np.arange(cells.n_obs), 32, meter)
    )
    assert real == meter.real_places
    assert 0 <= 1 - meter.real_places / meter.places < 0.05


@pytest.mark.parametrize("spec", [None, RAGGED])
def test_rows_that_cannot_be_read_are_found_and_the_others_go_on(
    spec: CellInput | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tokenizer(spec)
    rows = np.arange(60)
    expected = by_row(made.batches(rows, 8))
    blocks = type(made.source).blocks

    def torn(self: Any, wanted: Any = None, block_cells: int = 512) -> Iterator[Any]:
        if wanted is not None and np.isin(wanted, [7, 41]).any():
            raise InputError("a chunk is torn.")
        yield from blocks(self, wanted, block_cells)

    monkeypatch.setattr(type(made.source), "blocks", torn)
    found = list(token_batches(made, made.source, rows, 8, Meter()))
    assert [one for batch in found for one in batch.failures] == [(7, "a chunk is torn"), (41, "a chunk is torn")]
    assert by_row(iter(found)) == {row: one for row, one in expected.items() if row not in (7, 41)}


def test_a_file_that_is_gone_is_no_matter_of_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tokenizer()

    def torn(*_: Any, **__: Any) -> Iterator[Any]:
        raise InputError("it cannot be read.")
        yield

    monkeypatch.setattr(type(made.source), "blocks", torn)
    monkeypatch.setattr(batches, "is_there", lambda path: False)
    with pytest.raises(InputError, match="cannot be read"):
        list(token_batches(made, made.source, np.arange(9), 8, Meter()))
