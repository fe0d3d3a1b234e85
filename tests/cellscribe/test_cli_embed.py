"""Vectors of cells from the command line, for both kinds of bundles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from typer.testing import Result

Call = Callable[..., Result]


def test_a_bundle_with_an_encoder(cellscribe: Call, model: Any, cells_file: Path, tmp_path: Path) -> None:
    told = cellscribe("embed", cells_file, "-o", tmp_path / "out.h5ad")
    assert told.exit_code == 0, told.stderr
    assert ad.read_h5ad(tmp_path / "out.h5ad").obsm["X_cellscribe"].shape == (5, 4)
    told = cellscribe("embed", cells_file, "-o", tmp_path / "o.csv", "--upstream-padding", 4)
    assert told.exit_code == 2
    assert "is for bundles that read sentences" in " ".join(told.stderr.split())
    assert not (tmp_path / "o.csv").exists()


def test_a_bundle_that_reads_sentences(cellscribe: Call, c2s_bundle: Path, cells_file: Path, tmp_path: Path) -> None:
    given = ("embed", cells_file, "--bundle", c2s_bundle)
    for name in ("a.h5ad", "a.parquet", "a.csv", "a.jsonl"):
        told = cellscribe(*given, "-o", tmp_path / name, "--key-added", "c2s")
        assert told.exit_code == 0, told.stderr
    found = ad.read_h5ad(tmp_path / "a.h5ad")
    vectors = found.obsm["X_c2s"]
    assert vectors.shape == (5, 64)
    assert np.isfinite(vectors).all()
    assert found.uns["c2s_embedding"]["pooling"] == "mean of the last states over the prompt's tokens"
    np.testing.assert_array_equal(pd.read_parquet(tmp_path / "a.parquet").to_numpy(), vectors)
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 5
    told = cellscribe(*given, "-o", tmp_path / "b.parquet", "--limit", 2, "-q")
    assert told.exit_code == 0
    assert told.stdout == told.stderr == ""
    np.testing.assert_array_equal(pd.read_parquet(tmp_path / "b.parquet").to_numpy(), vectors[:2])
    told = cellscribe(*given, "-o", tmp_path / "c.parquet", "--upstream-padding", 5)
    assert told.exit_code == 0, told.stderr
    assert np.abs(pd.read_parquet(tmp_path / "c.parquet").to_numpy() - vectors).max() > 0.01


def test_a_cell_without_a_vector_says_why(cellscribe: Call, c2s_bundle: Path, cells_file: Path, tmp_path: Path) -> None:
    cells = ad.read_h5ad(cells_file)
    cells.X[1] = 0
    cells.write_h5ad(tmp_path / "holes.h5ad")
    told = cellscribe("embed", tmp_path / "holes.h5ad", "--bundle", c2s_bundle, "-o", tmp_path / "o.h5ad")
    assert told.exit_code == 4
    assert "no gene is expressed in it (cell-1)" in " ".join(told.stderr.split())
    assert np.isnan(ad.read_h5ad(tmp_path / "o.h5ad").obsm["X_cellscribe"]).any(1).tolist() == [0, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--upstream-padding", "0"], 2, "is 0; choose a batch of 1 to 512 cells"),
        (["--upstream-padding", "2", "--backend", "cpu"], 3, "does not pad prompts"),
        (["--genes", "{folder}/genes.txt"], 2, "reads sentences of all genes"),
        (["--hvg-flavor", "seurat_v3"], 2, "reads sentences of all genes"),
        (["--backend", "tensorrt"], 3, "the backend tensorrt cannot run here"),
        (["--template", "9"], 2, "prompts 0 to 2"),
        (["--bundle", "demo", "--organism", "mouse"], 2, "leave organism"),
        (["--bundle", "{folder}"], 3, "has no manifest.json"),
        (["--key-added", "a/b"], 2, "key_added is 'a/b'"),
    ],
)
def test_what_cannot_be_done(
    cellscribe: Call, c2s_bundle: Path, native_library: None, cells_file: Path, tmp_path: Path, arguments: list[str],
    code: int, said: str,
) -> None:  # fmt: skip
    (tmp_path / "genes.txt").write_text("CD3D\n")
    before = set(tmp_path.iterdir())
    given = [one.format(folder=tmp_path) for one in arguments]
    told = cellscribe("embed", cells_file, "--bundle", c2s_bundle, "-o", tmp_path / "out.h5ad", *given)
    assert told.exit_code == code, told.stderr
    assert said in " ".join(told.stderr.split())
    assert set(tmp_path.iterdir()) == before


def test_what_another_command_is_for(cellscribe: Call, c2s_bundle: Path, cells_file: Path) -> None:
    told = cellscribe("describe", cells_file, "--bundle", c2s_bundle)
    assert told.exit_code == 3
    assert "does not describe; use annotate, ask, generate or embed" in " ".join(told.stderr.split())
    told = cellscribe("doctor", cells_file, "--bundle", c2s_bundle)
    assert told.exit_code == 0, told.stderr
    assert "12 names as words, in sentences of 200" in " ".join(told.stdout.split())
    assert "to embed all cells" in " ".join(told.stdout.split())
