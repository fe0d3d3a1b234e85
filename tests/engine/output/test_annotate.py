from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pytest

from cellscribe.engine.errors import OutputError, UsageError
from cellscribe.engine.output.anndata import annotate
from cellscribe.engine.output.run import Run


def test_fields_land_on_their_cells(adata: ad.AnnData, run: Run) -> None:
    annotate(adata, run)
    assert list(adata.obs["cellscribe_status"]) == [
        "not run", "failed: all counts are zero", "not run", "not run", "ok", "not run", "ok",
    ]  # fmt: skip
    assert adata.obs["cellscribe_description"].iloc[4] == "A cell led by GENE3, of blood."
    assert adata.obs["cellscribe_description"].iloc[0] == ""
    assert adata.obs["cellscribe_num_tokens"].iloc[6] == 3
    assert np.isnan(adata.obs["cellscribe_grounding"].iloc[0])
    assert adata.obsm["cellscribe_top_genes"].tolist()[6] == [2, 5, 11]
    assert adata.obsm["cellscribe_top_genes"].tolist()[4] == [3, 0, -1]
    assert adata.obsm["cellscribe_top_gene_weights"][0].tolist() == [0, 0, 0]
    assert adata.obsm["X_cellscribe"][6].tolist() == [8, 9, 10, 11]
    assert np.isnan(adata.obsm["X_cellscribe"][0]).all()
    assert adata.uns["cellscribe"]["bundle"] == "tiny"
    assert list(adata.uns["cellscribe"]["gene_report"]["unmatched"]) == ["GENE9"]


def test_top_genes_index_var(adata: ad.AnnData, run: Run) -> None:
    annotate(adata, run)
    assert list(adata.var_names[adata.obsm["cellscribe_top_genes"][6]]) == ["GENE2", "GENE5", "GENE11"]


def test_pools_are_given_to_their_cells(adata: ad.AnnData, pools: Run) -> None:
    annotate(adata, pools)
    assert list(adata.obs["cellscribe_status"]) == ["ok"] * 2 + ["not run"] * 3 + ["ok"] * 2
    assert "X_cellscribe" not in adata.obsm
    assert adata.uns["cellscribe"]["pooled_by"] == "kind"
    assert list(adata.uns["cellscribe"]["pools"].index) == ["a", "c"]
    assert adata.uns["cellscribe"]["pool_embeddings"].shape == (2, 4)


def test_key_added_names_every_key(adata: ad.AnnData, run: Run) -> None:
    annotate(adata, run, "second")
    assert "second_description" in adata.obs
    assert {"X_second", "second_top_genes", "second_top_gene_weights"} <= set(adata.obsm)
    assert "second" in adata.uns
    assert not [name for name in adata.obs if name.startswith("cellscribe")]


@pytest.mark.parametrize("key", ["", " ", "a/b", ".hidden"])
def test_unusable_keys_are_refused(adata: ad.AnnData, run: Run, key: str) -> None:
    with pytest.raises(UsageError, match="key_added"):
        annotate(adata, run, key)
    assert list(adata.obs) == ["kind", "depth"]


def test_other_cells_are_refused(adata: ad.AnnData, run: Run, pools: Run) -> None:
    for one in (run, pools):
        with pytest.raises(OutputError, match="has 3 cells"):
            annotate(adata[:3].copy(), one)


def test_duplicate_names_keep_their_rows(adata: ad.AnnData, run: Run) -> None:
    adata.obs_names = ["same"] * adata.n_obs
    annotate(adata, replace(run, attention=()))
    assert adata.obs["cellscribe_status"].iloc[6] == "ok"
    assert adata.obs["cellscribe_status"].iloc[5] == "not run"


def test_embedding_alone_writes_no_obs(adata: ad.AnnData) -> None:
    rows = np.arange(adata.n_obs)
    annotate(adata, Run(rows=rows, embeddings=np.ones((7, 2), np.float32), cell_ids=tuple(adata.obs_names)))
    assert list(adata.obs) == ["kind", "depth"]
    assert adata.obsm["X_cellscribe"].shape == (7, 2)
