from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cellscribe.engine.output.files import write_run
from cellscribe.engine.output.run import Run


def _dense(matrix: object) -> np.ndarray:
    return np.asarray(matrix.toarray() if sparse.issparse(matrix) else matrix)  # type: ignore[attr-defined]


def _assert_same_but_new(before: ad.AnnData, after: ad.AnnData) -> None:
    np.testing.assert_array_equal(_dense(before.X), _dense(after.X))
    np.testing.assert_array_equal(_dense(before.raw.X), _dense(after.raw.X))
    np.testing.assert_array_equal(before.layers["dense"], after.layers["dense"])
    np.testing.assert_array_equal(before.obsm["X_pca"], after.obsm["X_pca"])
    pd.testing.assert_frame_equal(
        before.obs, after.obs[list(before.obs)], check_dtype=False, check_index_type=False, check_categorical=False
    )
    assert list(before.var_names) == list(after.var_names)
    assert after.uns["kept"] == {"x": 1}
    assert after.obs["cellscribe_status"].iloc[4] == "ok"
    assert after.obs["cellscribe_description"].iloc[0] == ""
    assert after.obsm["X_cellscribe"].shape == (7, 4)
    assert "none" not in after.uns["cellscribe"]["gene_report"]
    assert after.uns["cellscribe"]["versions"] == {"a|b": "1"}


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_a_file_keeps_all_it_had(adata: ad.AnnData, run: Run, tmp_path: Path, form: str) -> None:
    adata.X = {"csr": adata.X, "csc": sparse.csc_matrix(adata.X), "dense": adata.X.toarray()}[form]
    source, out = tmp_path / "in.h5ad", tmp_path / "out.h5ad"
    adata.write_h5ad(source)
    before = source.read_bytes()
    write_run(run, out, source)
    assert source.read_bytes() == before
    _assert_same_but_new(ad.read_h5ad(source), ad.read_h5ad(out))


def test_the_matrix_is_not_read(cells_file: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = h5py.Dataset.__getitem__

    def watched(self: h5py.Dataset, *args: object, **kwargs: object) -> object:
        read.append(self.name)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", watched)
    write_run(run, tmp_path / "out.h5ad", cells_file)
    assert not [name for name in read if name.startswith(("/X", "/raw", "/layers"))]


def test_an_object_in_memory_is_annotated_and_written(adata: ad.AnnData, run: Run, tmp_path: Path) -> None:
    write_run(run, tmp_path / "out.h5ad", adata)
    assert "cellscribe_status" in adata.obs
    _assert_same_but_new(adata, ad.read_h5ad(tmp_path / "out.h5ad"))


def test_a_backed_object_is_written_and_its_file_left_alone(cells_file: Path, run: Run, tmp_path: Path) -> None:
    before = cells_file.read_bytes()
    backed = ad.read_h5ad(cells_file, backed="r")
    backed.obs["edited"] = 1
    write_run(run, tmp_path / "out.h5ad", backed)
    backed.file.close()
    after = ad.read_h5ad(tmp_path / "out.h5ad")
    assert cells_file.read_bytes() == before
    assert "edited" in after.obs
    _assert_same_but_new(ad.read_h5ad(cells_file), after)


def test_running_twice_replaces_the_fields(cells_file: Path, run: Run, pools: Run, tmp_path: Path) -> None:
    write_run(run, tmp_path / "one.h5ad", cells_file)
    write_run(pools, tmp_path / "two.h5ad", tmp_path / "one.h5ad")
    after = ad.read_h5ad(tmp_path / "two.h5ad")
    assert list(after.obs).count("cellscribe_status") == 1
    assert list(after.obs["cellscribe_status"])[:3] == ["ok", "ok", "not run"]
    assert after.uns["cellscribe"]["pools"].loc["c", "num_cells"] == 2


def test_a_file_without_obsm_and_uns_gets_them(cells_file: Path, run: Run, tmp_path: Path) -> None:
    with h5py.File(cells_file, "r+") as file:
        del file["obsm"], file["uns"]
    write_run(run, tmp_path / "out.h5ad", cells_file)
    assert "X_cellscribe" in ad.read_h5ad(tmp_path / "out.h5ad").obsm


def test_a_linked_obs_is_never_written_through(cells_file: Path, run: Run, tmp_path: Path) -> None:
    victim, trap = tmp_path / "victim.h5ad", tmp_path / "trap.h5ad"
    victim.write_bytes(cells_file.read_bytes())
    trap.write_bytes(cells_file.read_bytes())
    with h5py.File(trap, "r+") as file:
        del file["obs"]
        file["obs"] = h5py.ExternalLink(victim.name, "/obs")
    before = victim.read_bytes()
    write_run(run, tmp_path / "out.h5ad", trap)
    assert victim.read_bytes() == before
    assert ad.read_h5ad(tmp_path / "out.h5ad").obs["cellscribe_status"].iloc[4] == "ok"


@pytest.mark.slow
def test_scanpy_uses_the_embedding(cells_file: Path, tmp_path: Path) -> None:
    scanpy = pytest.importorskip("scanpy")
    vectors = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    write_run(Run(rows=np.arange(7), embeddings=vectors, cell_ids=("x",) * 7), tmp_path / "out.h5ad", cells_file)
    adata = ad.read_h5ad(tmp_path / "out.h5ad")
    scanpy.pp.neighbors(adata, use_rep="X_cellscribe", n_neighbors=3)
    assert adata.obsp["connectivities"].shape == (7, 7)


def test_an_interrupt_while_writing_leaves_what_was_there(
    cells_file: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leftovers: Callable[[], list[str]]
) -> None:
    out = tmp_path / "out.h5ad"
    out.write_bytes(b"earlier")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cellscribe.engine.output.h5ad.add_fields", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_run(run, out, cells_file)
    assert out.read_bytes() == b"earlier"
    assert leftovers() == []
