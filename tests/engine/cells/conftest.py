from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from cellscribe.engine.cells import CellInput, GeneVocabulary

GENES = ("CD3D", "CD8A", "MS4A1", "NKG7", "LYZ", "GNLY", "CD14", "PPBP", "FCER1A", "CD79A", "CST3", "S100A8")


def make_cells(n_cells: int = 9, genes: tuple[str, ...] = GENES, seed: int = 0) -> AnnData:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(1.5, (n_cells, len(genes))).astype(np.float32)
    counts[:, 0] += 1  # no empty cell
    obs = pd.DataFrame({"kind": pd.Categorical(["T", "B", "NK"] * n_cells)[:n_cells], "size": np.arange(n_cells)})
    obs.index = pd.Index([f"cell{i}" for i in range(n_cells)])
    return AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=pd.Index(genes)))


@pytest.fixture
def cells() -> AnnData:
    return make_cells()


@pytest.fixture
def make() -> Callable[..., AnnData]:
    return make_cells


@pytest.fixture
def vocabulary() -> GeneVocabulary:
    return GeneVocabulary(("<pad>", *reversed(GENES), "<cls>"), input_genes=GENES)


@pytest.fixture
def fixed() -> CellInput:
    return CellInput("fixed", "list", len(GENES), n_bins=7)
