"""Cells of two types, made by hand."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp


def made(seed: int = 0, num_cells: int = 24, num_genes: int = 80) -> ad.AnnData:
    """Counts of two types, each with genes of its own."""
    draws = np.random.default_rng(seed)
    kinds = np.array(["A", "B"] * (num_cells // 2))
    rate = np.ones((num_cells, num_genes))
    rate[kinds == "A", :20] = 8
    rate[kinds == "B", 20:40] = 8
    obs = pd.DataFrame({"cell_type": kinds}, index=[f"c{i}" for i in range(num_cells)])
    var = pd.DataFrame(index=[f"G{i}" for i in range(num_genes)])
    return ad.AnnData(sp.csr_matrix(draws.poisson(rate).astype(np.float32)), obs=obs, var=var)
