from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cellscribe.engine.output.run import Run
from cellscribe.engine.types import AttentionRecord, Description, TopGenes

N_CELLS, N_GENES = 7, 12
ROWS = (4, 1, 6)


def description(cell_id: str, genes: tuple[int, ...] = (3, 0), **changes: object) -> Description:
    symbols = tuple(f"GENE{one}" for one in genes)
    weights = tuple(0.5 / (place + 1) for place in range(len(genes)))
    values: dict[str, object] = {
        "text": f"A cell led by {symbols[0]}, of blood." if symbols else "A cell.",
        "token_ids": (5, 6, 7),
        "mean_logprob": -0.25,
        "latency_ms": 12.5,
        "finish_reason": "stop",
        "top_genes": TopGenes(symbols, weights, genes),
        "named_genes": symbols[:1],
    }
    return Description(cell_id, **(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def adata() -> ad.AnnData:
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(rng.poisson(0.8, (N_CELLS, N_GENES)).astype(np.float32))
    obs = pd.DataFrame(
        {"kind": pd.Categorical(list("aabbbcc")), "depth": np.arange(N_CELLS)},
        index=[f"cell-{row}" for row in range(N_CELLS)],
    )
    var = pd.DataFrame(index=[f"GENE{one}" for one in range(N_GENES)])
    result = ad.AnnData(counts, obs=obs, var=var, layers={"dense": counts.toarray()}, uns={"kept": {"x": 1}})
    result.obsm["X_pca"] = rng.normal(size=(N_CELLS, 2))
    result.raw = result.copy()
    return result


@pytest.fixture
def cells_file(adata: ad.AnnData, tmp_path: Path) -> Path:
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    return path


@pytest.fixture
def run() -> Run:
    """Three of the seven cells, out of order; the second one failed."""
    every = (
        description("cell-4"),
        Description("cell-1", status="failed: all counts are zero"),
        description("cell-6", (2, 5, 11)),
    )
    records = tuple(
        AttentionRecord(name, ("<cls>", "GENE0", "GENE3"), np.full((2, 4, 3, 3), 1 / 3, np.float32))
        for name in ("cell-4", "cell-6")
    )
    return Run(
        rows=np.array(ROWS),
        descriptions=every,
        embeddings=np.arange(12, dtype=np.float32).reshape(3, 4),
        attention=records,
        gene_report={"sentence": "11 of 12 genes matched (92 %).", "unmatched": ["GENE9"], "share": 0.92, "none": None},
        settings={
            "bundle": "tiny",
            "bundle_hash": "ab" * 32,
            "seed": 0,
            "versions": {"a/b": "1"},
            "sampling": "greedy",
        },
    )


@pytest.fixture
def pools() -> Run:
    """Pools a and c of obs column "kind"; b was left out."""
    return Run(
        descriptions=(description("a", ()), description("c", ())),
        embeddings=np.ones((2, 4), np.float32),
        settings={"bundle": "tiny"},
        pooled_by="kind",
        pool_of=np.array([0, 0, -1, -1, -1, 1, 1]),
    )


@pytest.fixture
def leftovers(tmp_path: Path) -> Callable[[], list[str]]:
    """Names of unfinished files in the folder."""
    return lambda: sorted(path.name for path in tmp_path.rglob("*") if path.name.endswith(".part"))
