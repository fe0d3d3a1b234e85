"""What cannot be compared is said in one sentence."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from made_cells import made

from cellscribe.engine.errors import InputError, UsageError
from cellscribe.engine.instruct.compare_settings import CompareSettings
from cellscribe.engine.instruct.comparison import compare_cells

NO_MAP = CompareSettings(has_map=False)


def _nothing_shared(cells: ad.AnnData) -> None:
    cells.var_names = [f"ENSG{i}" for i in range(cells.n_vars)]


def _no_column(cells: ad.AnnData) -> None:
    del cells.obs["cell_type"]


def _no_types(cells: ad.AnnData) -> None:
    cells.obs["cell_type"] = None


def _other_types(cells: ad.AnnData) -> None:
    cells.obs["cell_type"] = [f"type {i}" for i in range(cells.n_obs)]


def _nothing_expressed(cells: ad.AnnData) -> None:
    cells.X = sp.csr_matrix(cells.shape, dtype=np.float32)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_nothing_shared, "share 0 gene names and 50 are needed"),
        (_no_column, "no obs column 'cell_type'"),
        (_no_types, "no cell of .* has a type in the obs column 'cell_type'"),
        (_other_types, r"no type of .* \(type 0, type 1, type 10, type 11, type 12 and 19 more\) is one of"),
        (_nothing_expressed, "expresses any of the shared genes"),
    ],
)
def test_what_cannot_be_compared(spoil: object, said: str) -> None:
    cells = made()
    spoil(cells)  # type: ignore[operator]
    with pytest.raises(InputError, match=said) as caught:
        compare_cells(cells, made(1), settings=NO_MAP)
    assert str(caught.value).count(". ") == 0
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("num_cells", [0, 1, 5])
def test_too_few_cells(num_cells: int) -> None:
    with pytest.raises(InputError, match=r"one of each at least|and 6 are needed"):
        compare_cells(made(), made(1)[:num_cells].copy(), settings=NO_MAP)


def test_six_cells_are_enough() -> None:
    found = compare_cells(made()[:6].copy(), made(1)[:6].copy(), settings=NO_MAP)
    assert found.components.neighbours == (5,)


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"neighbours": ()}, "choose some from 1 on"),
        ({"neighbours": (0,)}, "choose some from 1 on"),
        ({"max_cells": 2}, "max_cells is 2; choose at least 6"),
        ({"components": 0}, "components is 0"),
        ({"gammas": (0.0,)}, "choose some above 0"),
        ({"log_base": 1.0}, "base of a logarithm is 1"),
    ],
)
def test_settings_that_cannot_be(wishes: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        CompareSettings(**wishes)  # type: ignore[arg-type]
