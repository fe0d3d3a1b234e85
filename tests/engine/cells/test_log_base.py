"""Files whose X scanpy logged to another base than e, as ``uns["log1p"]`` says."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from cellscribe.engine.cells import CellSource, open_cells
from cellscribe.engine.cells.logarithm import log_base_of
from cellscribe.engine.instruct.compared_cells import read_compared
from cellscribe.engine.sentences import Inverse
from cellscribe.engine.sentences.words import words_and_line

BASES = (10.0, 2.0)


@pytest.fixture
def normalised() -> npt.NDArray[np.float64]:
    """Counts of 12 cells and 40 genes, brought to one total."""
    counts = np.random.default_rng(3).poisson(2.0, (12, 40)).astype(float)
    return counts / counts.sum(axis=1, keepdims=True) * 1e4


def logged(values: npt.NDArray[np.float64], base: float, said: object) -> AnnData:
    """Cells as scanpy leaves them."""
    genes = pd.DataFrame(index=[f"g{i}" for i in range(values.shape[1])])
    cells = AnnData(sp.csr_matrix(np.log1p(values) / np.log(base)).astype(np.float32), var=genes)
    cells.obs_names = [f"c{i}" for i in range(len(values))]
    cells.obs["cell_type"] = ["a", "b"] * (len(values) // 2)
    cells.uns["log1p"] = {} if said is None else {"base": said}
    return cells


def everywhere(cells: AnnData, folder: Path) -> list[AnnData | Path]:
    """The cells in memory, in an .h5ad file and in a .zarr store."""
    cells.write_h5ad(folder / "cells.h5ad")
    cells.write_zarr(folder / "cells.zarr")
    return [cells, folder / "cells.h5ad", folder / "cells.zarr"]


def values_of(source: CellSource) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = sp.vstack([one.matrix for one in source.blocks()]).toarray()
    return found


@pytest.mark.parametrize("base", BASES)
def test_the_base_that_is_said_is_taken_back(normalised: npt.NDArray[np.float64], base: float, tmp_path: Path) -> None:
    for cells in everywhere(logged(normalised, base, base), tmp_path):
        with open_cells(cells) as source:
            assert source.log_base == base
            assert source.is_log10 == (base == 10.0)
            assert f"uns['log1p'] says that they are log(1 + x) to base {base:g}, and they are" in source.value_note
            np.testing.assert_allclose(values_of(source), np.log1p(normalised), rtol=1e-5)
            assert log_base_of(source) == pytest.approx(np.e)


@pytest.mark.parametrize("said", [None, np.e, "natural", 1, 0.5, -10, float("nan"), "", [10.0, 2.0]])
def test_what_names_no_other_base_leaves_natural_logarithms(
    normalised: npt.NDArray[np.float64], said: object, tmp_path: Path
) -> None:
    for cells in everywhere(logged(normalised, np.e, said), tmp_path):
        with open_cells(cells) as source:
            assert source.log_base is None
            assert "log1p" not in source.value_note
            np.testing.assert_allclose(values_of(source), np.log1p(normalised), rtol=1e-5)


def test_a_base_that_the_values_deny_is_not_believed(normalised: npt.NDArray[np.float64], tmp_path: Path) -> None:
    for cells in everywhere(logged(normalised, np.e, 10), tmp_path):  # normalised and logged anew since
        with open_cells(cells) as source:
            assert source.log_base is None
            assert "but cells have one total as ln(1 + x) and none so, so they are read as ln" in source.value_note
            np.testing.assert_allclose(values_of(source), np.log1p(normalised), rtol=1e-5)
    with open_cells(logged(normalised * 3 + 1e4 * np.arange(12)[:, None], np.e, 10)) as source:
        assert "is too large for that" in source.value_note
        assert source.log_base is None


def test_genes_without_one_total_are_still_read_so(normalised: npt.NDArray[np.float64]) -> None:
    with open_cells(logged(normalised[:, ::3], 10, np.int64(10))) as source:
        assert source.is_log10


def test_it_is_said_of_x_alone(normalised: npt.NDArray[np.float64]) -> None:
    cells = logged(normalised, 10, 10)
    cells.layers["logcounts"] = sp.csr_matrix(np.log1p(normalised)).astype(np.float32)
    cells.raw = AnnData(cells.layers["logcounts"].copy(), obs=cells.obs, var=cells.var)
    for layer in ("logcounts", "raw"):
        with open_cells(cells, layer=layer) as source:
            assert source.log_base is None
            np.testing.assert_allclose(values_of(source), np.log1p(normalised), rtol=1e-5)
    cells.X = sp.csr_matrix(np.rint(normalised)).astype(np.float32)
    with open_cells(cells, layer="X") as source:
        assert source.value_kind == "counts"
        assert source.log_base is None


def test_an_entry_that_cannot_be_read_says_nothing(normalised: npt.NDArray[np.float64], tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    logged(normalised, np.e, None).write_h5ad(path)
    with h5py.File(path, "a") as file:
        file["uns/log1p"]["base"] = h5py.SoftLink("/nowhere")
    with open_cells(path) as source:
        assert source.log_base is None


@pytest.mark.parametrize("base", BASES)
def test_the_line_of_sentences_and_a_comparison_follow(normalised: npt.NDArray[np.float64], base: float) -> None:
    lines, values = list[Inverse](), []
    for cells in (logged(normalised, np.e, None), logged(normalised, base, base)):
        with open_cells(cells) as source:
            lines.append(words_and_line(source)[1])
            genes = [str(name) for name in source.var_names]
            wanted = None if source.log_base is None else base
            values += [read_compared(source, genes, "cell_type", 100, log_base=one).values.toarray()
                       for one in (None, wanted)]  # fmt: skip
    assert (lines[1].slope, lines[1].intercept) == pytest.approx((lines[0].slope, lines[0].intercept), abs=1e-4)
    for one in values[1:]:
        np.testing.assert_allclose(one, values[0], rtol=1e-4, atol=1e-4)


def test_a_newer_entry_of_scanpys_goes_before_our_mark(normalised: npt.NDArray[np.float64]) -> None:
    cells = logged(normalised, 10, 10)
    cells.uns["cellscribe_inverse"] = {"slope": -0.5, "intercept": 1.9, "values": "log10(1 + x)"}
    with open_cells(cells) as source:
        assert source.is_log10
        assert "to base 10, and they are read as ln(1 + x)" in source.value_note
