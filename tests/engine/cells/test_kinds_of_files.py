"""The same cells from every kind of file: equal blocks, names, tokens, and vectors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData, read_h5ad
from writing import GENE_TYPE, WRITERS, ids_of, tenx_h5, tenx_mtx, zarr_store

import cellscribe as cs
from cellscribe.engine.cells import open_cells
from cellscribe.engine.errors import InputError
from cellscribe.engine.packaged import packaged_bundle, packaged_cells

pytest.importorskip("zarr", minversion="3")
OTHERS = [name for name in WRITERS if name != "h5ad"]
TENX = {"h5": tenx_h5, "mtx": tenx_mtx}


def dense(source, rows=None, block_cells=4):
    return np.vstack([block.matrix.toarray() for block in source.blocks(rows, block_cells)])


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_reads_the_same(cells, tmp_path, kind):
    path = WRITERS[kind](cells, tmp_path)
    with open_cells(path) as source, open_cells(cells) as known:
        assert (source.path, source.name) == (path, path.name)
        assert (source.value_kind, source.value_origin) == ("counts", "X")
        assert list(source.obs_names) == list(cells.obs_names)
        assert list(source.var_names) == list(cells.var_names)
        np.testing.assert_array_equal(dense(source), cells.X.toarray())
        order = np.array([7, 0, 3, 3, 8])
        np.testing.assert_array_equal(dense(source, order, 2), cells.X.toarray()[order])
        assert source.fingerprint() == known.fingerprint()
        assert ("as text" in " ".join(source.notes)) == ("mtx" in kind)
        if kind.startswith("10x"):
            assert source.obs_columns == ()
            assert list(source.var_ensembl) == ids_of(cells)


def blood(name, folder):
    """Some real cells, of the package or of a file, with counts."""
    cells = read_h5ad(packaged_cells() if name == "packaged" else folder / f"data/{name}.h5ad")[:48].copy()
    if name == "packaged":
        cells.X = sp.csr_matrix(np.rint(np.expm1(cells.X.toarray()))).astype(np.float32)
    return cells


@pytest.fixture(scope="module", params=["packaged", "zheng68k"])
def real(request):
    """Some real cells, of the package or of a file, with counts."""
    if request.param == "packaged":
        cells = read_h5ad(packaged_cells())[:40].copy()
        cells.X = sp.csr_matrix(np.rint(np.expm1(cells.X.toarray())), dtype=np.float32)
        return cells
    return read_h5ad(request.getfixturevalue("shared") / "data/zheng68k.h5ad")[:40].copy()


@pytest.fixture(scope="module")
def model():
    return cs.load(packaged_bundle(), threads=1)


@pytest.mark.parametrize("kind", OTHERS)
def test_real_cells_give_equal_tokens_and_vectors(model, real, tmp_path, kind):
    with open_cells(real) as one, open_cells(WRITERS[kind](real, tmp_path)) as two:
        for known, found in zip(model.tokenizer(one).batches(), model.tokenizer(two).batches(), strict=True):
            for name in ("genes", "values", "mask"):
                np.testing.assert_array_equal(getattr(found, name), getattr(known, name))
        rows = np.array([0, 7, 39])
        known, found = (model.embed_cells(source, rows=rows).embeddings for source in (one, two))
        np.testing.assert_array_equal(found, known)


@pytest.mark.parametrize("layout", ["csr", "csc", "dense"])
@pytest.mark.parametrize("version", [2, 3])
def test_zarr_layouts_layers_raw_and_columns(make, tmp_path, layout, version):
    cells = make(40)
    counts = cells.X.toarray()
    cells.obs["maybe"] = pd.array([1, None, 3, 4] * 10, dtype="Int64")
    cells.obs["flag"] = np.arange(40) % 2 == 0
    cells.obs["words"] = pd.array([f"w{i}" for i in range(40)], dtype="string")
    cells.var["gene_ids"] = ids_of(cells)
    stored = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}[layout]
    cells.layers["counts"] = stored(counts)
    cells.X = stored(counts - 1)
    cells.raw = AnnData(stored(counts + 1), var=cells.var, obs=cells.obs[[]])
    with open_cells(zarr_store(cells, tmp_path, version)) as source, open_cells(cells) as known:
        assert source.value_origin == "layers['counts']"
        assert ("CSC" in " ".join(source.notes)) == (layout == "csc")
        np.testing.assert_array_equal(dense(source, block_cells=7), counts)
        assert set(source.obs_columns) == set(known.obs_columns)
        for name in known.obs_columns:
            pd.testing.assert_series_equal(
                source.obs_column(name), known.obs_column(name), check_dtype=False, check_categorical=False
            )
        assert list(source.var_ensembl) == ids_of(cells)
    with open_cells(tmp_path / "cells.zarr", layer="raw") as source:
        np.testing.assert_array_equal(dense(source), counts + 1)
    with pytest.raises(InputError, match="below zero"):
        open_cells(tmp_path / "cells.zarr", layer="X")


@pytest.mark.parametrize("layout", [sp.csr_matrix, np.asarray])
@pytest.mark.parametrize("is_sharded", [False, True])
def test_zarr_blocks_across_chunks_and_shards(make, tmp_path, layout, is_sharded):
    import zarr

    cells = make(50)
    cells.X = layout(cells.X.toarray())
    path = zarr_store(cells, tmp_path)
    root = zarr.open_group(path, mode="r+")
    for key in ("X/data", "X/indices", "X/indptr") if "X/data" in root else ("X",):
        values, attrs = root[key][:], dict(root[key].attrs)
        chunks = (13, *values.shape[1:])
        shards = (26, *values.shape[1:]) if is_sharded else None
        del root[key]
        root.create_array(key, data=values, chunks=chunks, shards=shards).attrs.update(attrs)
    with open_cells(path) as source:
        expected = cells.X.toarray() if sp.issparse(cells.X) else cells.X
        for size in (1, 7, 50):
            np.testing.assert_array_equal(dense(source, block_cells=size), expected)
        order = np.array([49, 3, 30, 3])
        np.testing.assert_array_equal(dense(source, order), expected[order])


@pytest.mark.parametrize("kind", TENX)
def test_features_that_are_no_genes_are_left_out(cells, tmp_path, kind):
    cells.var["feature_types"] = [GENE_TYPE] * 7 + ["Antibody Capture"] * 4 + ["CRISPR Guide Capture"]
    with open_cells(TENX[kind](cells, tmp_path)) as source:
        assert list(source.var_names) == list(cells.var_names[:7])
        np.testing.assert_array_equal(dense(source), cells.X.toarray()[:, :7])
        assert "5 of 12 features are Antibody Capture, CRISPR Guide Capture and left out." in source.value_note
    cells.var["feature_types"] = "Peaks"
    with pytest.raises(InputError, match="holds Peaks and no Gene Expression"):
        open_cells(TENX[kind](cells, tmp_path))


@pytest.mark.parametrize("kind", OTHERS)
def test_bad_cells_duplicates_and_lenience(make, tmp_path, kind):
    cells = make(30)
    cells.X[17, 4] = -3
    path = WRITERS[kind](cells, tmp_path)
    with pytest.raises(InputError, match=r"cell 'cell17'"):
        open_cells(path)
    with open_cells(path, is_lenient=True) as source:
        list(source.blocks())
        assert list(source.bad_cells) == [17]
    cells = make(30)
    cells.obs_names = [f"cell{i // 2}" for i in range(30)]
    cells.var_names = ["CD3D", "CD3D", *cells.var_names[2:]]
    with pytest.raises(InputError, match="two cells 'cell0'"):
        open_cells(WRITERS[kind](cells, tmp_path))
    cells.obs_names = [f"cell{i}" for i in range(30)]
    with open_cells(WRITERS[kind](cells, tmp_path)) as source:
        assert list(source.var_names[:2]) == ["CD3D", "CD3D"]


@pytest.mark.parametrize("field", ["integer", "real"])
def test_entries_in_any_order_and_spacing(cells, tmp_path, field):
    path = tenx_mtx(cells, tmp_path, version=2) / "matrix.mtx"
    _, _, size, *lines = path.read_text().splitlines()
    np.random.default_rng(0).shuffle(lines)
    end = ".0" if field == "real" else ""
    odd = [line.replace(" ", "\t" if i % 2 else "   ") + end + " " for i, line in enumerate(lines)]
    head = f"%%MatrixMarket matrix coordinate {field} general"
    path.write_bytes("\r\n".join([head, "% a comment", "", size, *odd, "", ""]).encode())
    with open_cells(path.parent) as source:
        np.testing.assert_array_equal(dense(source), cells.X.toarray())
        assert source.value_dtype == (np.float64 if field == "real" else np.int64)


def test_an_hdf5_file_is_what_it_holds(cells, tmp_path):
    tenx_h5(cells, tmp_path).rename(tmp_path / "odd.h5ad")
    cells.write_h5ad(tmp_path / "odd.h5")
    for name in ("odd.h5", "odd.h5ad"):
        with open_cells(tmp_path / name) as source:
            np.testing.assert_array_equal(dense(source), cells.X.toarray())
