"""Files that say that X is log10(1 + x)."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData

from cellscribe.engine.cells import open_cells
from cellscribe.engine.cells.log10 import Log10Mark
from cellscribe.engine.instruct.compared_cells import read_compared
from cellscribe.engine.sentences import Inverse, SentenceGenes
from cellscribe.engine.sentences.read import cells_of
from cellscribe.engine.sentences.words import words_and_line


@pytest.fixture
def written() -> AnnData:
    genes = [f"g{i}" for i in range(40)]
    sentences = [" ".join(genes[i:] + genes[:i]) for i in range(12)]
    made = cells_of([f"c{i}" for i in range(12)], sentences, SentenceGenes.of(genes), Inverse(-0.5, 1.9))[0]
    made.obs["cell_type"] = ["a", "b"] * 6
    return made


def in_memory_and_on_disk(cells: AnnData, folder: Path) -> tuple[AnnData, Path]:
    cells.write_h5ad(folder / "cells.h5ad")
    return cells, folder / "cells.h5ad"


def test_they_are_read_as_natural_logarithms(written: AnnData, tmp_path: Path) -> None:
    for cells in in_memory_and_on_disk(written, tmp_path):
        with open_cells(cells) as source:
            assert source.is_log10
            assert "are log10(1 + x), as cellscribe wrote them, and are read as ln(1 + x)." in source.value_note
            found = sp.vstack([one.matrix for one in source.blocks()]).toarray()
    np.testing.assert_allclose(found, written.X.toarray() * np.log(10), rtol=1e-6)


def test_the_line_that_made_them_is_found_again(written: AnnData, tmp_path: Path) -> None:
    for cells in in_memory_and_on_disk(written, tmp_path):
        with open_cells(cells) as source:
            line = words_and_line(source)[1]
        assert (line.slope, line.intercept) == pytest.approx((-0.5, 1.9), abs=1e-3)


def test_a_comparison_needs_no_base_and_takes_the_right_one(written: AnnData) -> None:
    genes = [str(name) for name in written.var_names]
    with open_cells(written) as source:
        left = [read_compared(source, genes, "cell_type", 100, log_base=base).values.toarray() for base in (None, 10.0)]
    np.testing.assert_allclose(left[0], left[1], rtol=1e-5)
    counts = written.copy()
    counts.X = sp.csr_matrix(np.power(10.0, written.X.toarray()) - 1)
    del counts.uns["cellscribe_inverse"]
    with open_cells(counts, values="counts") as source:
        right = read_compared(source, genes, "cell_type", 100).values.toarray()
    np.testing.assert_allclose(left[0], right, rtol=1e-4, atol=1e-5)


def test_values_that_were_worked_on_are_not_what_the_file_says(written: AnnData, tmp_path: Path) -> None:
    again = written.copy()
    again.X = sp.csr_matrix(np.log1p(np.power(10.0, written.X.toarray()) - 1))
    for said in (None, {"base": None}):
        if said is not None:
            again.uns["log1p"] = said  # as scanpy leaves it
        for cells in in_memory_and_on_disk(again, tmp_path):
            with open_cells(cells) as source:
                assert not source.is_log10
                words = "uns['log1p'] says that X was logged since" if "log1p" in again.uns else "is none of the line"
                assert words in source.value_note
                assert "so they are read as ln(1 + x)" in source.value_note
                found = sp.vstack([one.matrix for one in source.blocks()]).toarray()
        np.testing.assert_allclose(found, again.X.toarray(), rtol=1e-6)


def test_parts_of_the_cells_and_of_the_genes_are_still_read_so(written: AnnData) -> None:
    for part in (written[3:5].copy(), written[:, 5:9].copy(), written[:, ::-1].copy()):
        with open_cells(part) as source:
            assert source.is_log10


def test_a_line_says_which_values_it_gives() -> None:
    falling, flat = Log10Mark(-0.5, 1.9), Log10Mark(0.0, 1.5)
    assert not any(falling.doubt(np.float32(1.9 - 0.5 * np.log10(1 + rank))) for rank in range(300))
    far = [rank + part for rank in (500, 1_000, 5_000) for part in (0.0, 0.5)]
    doubts = [bool(falling.doubt(np.float32(1.9 - 0.5 * np.log10(1 + rank)))) for rank in far]
    assert doubts == [False, True] * 3
    assert falling.doubt(1.95)
    assert falling.doubt(1.85)
    assert falling.doubt(1e9)
    assert not flat.doubt(1.5)
    assert flat.doubt(1.4)


def test_what_says_nothing_changes_nothing(written: AnnData, tmp_path: Path) -> None:
    for entry in ("text", {"values": "ln(1 + x)"}, {}, None):
        if entry is None:
            del written.uns["cellscribe_inverse"]
        else:
            written.uns["cellscribe_inverse"] = entry
        for cells in in_memory_and_on_disk(written, tmp_path):
            with open_cells(cells) as source:
                assert not source.is_log10
    path = tmp_path / "cells.h5ad"
    with h5py.File(path, "a") as file:
        group = file["uns"].create_group("cellscribe_inverse")
        group["values"] = h5py.SoftLink("/nowhere")
    with open_cells(path) as source:
        assert not source.is_log10
    written.uns["cellscribe_inverse"] = {"values": "log10(1 + x)"}
    written.layers["counts"] = np.rint(written.X.toarray())
    with open_cells(written, layer="counts") as source:
        assert not source.is_log10
