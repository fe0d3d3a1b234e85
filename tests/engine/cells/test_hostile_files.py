"""Files that lie, crash or trick: each is one sentence, and this process survives."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from refusing import read_all, refuse

from cellscribe.engine.cells import ReadLimits, open_cells
from cellscribe.engine.errors import InputError


@pytest.fixture
def path(cells, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def replace(path, key, **how):
    with h5py.File(path, "r+") as file:
        del file[key]
        file.create_dataset(key, **how)


def test_missing_folder_empty_text(tmp_path):
    refuse(tmp_path / "none.h5ad", "There is no file")
    (tmp_path / "store.zarr").mkdir()
    refuse(tmp_path / "store.zarr", "is a folder without.*no .zarr store and no 10x folder")
    (tmp_path / "matrix.mtx.gz").touch()
    refuse(tmp_path / "matrix.mtx.gz", "name the folder of")
    (tmp_path / "empty.h5ad").touch()
    refuse(tmp_path / "empty.h5ad", "is empty")
    (tmp_path / "text.h5ad").write_text("gene,count\n")
    refuse(tmp_path / "text.h5ad", "not an HDF5 file")
    os.mkfifo(tmp_path / "pipe.h5ad")
    refuse(tmp_path / "pipe.h5ad", "not a regular file")


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_truncated(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    refuse(path, "truncated")


def test_not_an_h5ad(tmp_path):
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        file["matrix"] = np.ones(3)
    refuse(tmp_path / "a.h5ad", "no .h5ad")


def test_bytes_flipped_at_random(path):
    rng = np.random.default_rng(0)
    whole = bytearray(path.read_bytes())
    for _ in range(12):
        broken = whole.copy()
        for place in rng.integers(8, len(whole), 60):
            broken[place] = rng.integers(256)
        path.write_bytes(broken)
        with contextlib.suppress(InputError):  # many flips hit what is never read
            read_all(path, ReadLimits(seconds=10))


def test_external_storage(path, tmp_path):
    (tmp_path / "secret").write_bytes(b"\x01" * 4 * 9 * 12)
    replace(path, "X", shape=(9, 12), dtype="f4", external=[(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)])
    refuse(path, "in other files")


@pytest.mark.parametrize("kind", ["soft", "external"])
@pytest.mark.parametrize("key", ["X", "X/data", "obs", "var/_index"])
def test_links(path, tmp_path, kind, key):
    os.link(path, tmp_path / "other.h5ad")
    with h5py.File(path, "r+") as file:
        file["copy"] = file[key]
        del file[key]
        file[key] = h5py.SoftLink("/copy") if kind == "soft" else h5py.ExternalLink("other.h5ad", "/copy")
    refuse(path, "is a link")


def test_virtual_dataset(path):
    layout = h5py.VirtualLayout((9, 12), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (9, 12))
    with h5py.File(path, "r+") as file:
        del file["X"]
        file.create_virtual_dataset("X", layout)
    refuse(path, "in other files")


def test_declared_far_beyond_stored(path):
    replace(path, "X", shape=(9, 2_000_000_000), dtype="f8", chunks=(9, 4096), compression="gzip")
    refuse(path, "declares 144,000,000,000 bytes but stores 0")
    assert path.stat().st_size < 500_000


def test_compressed_zeros(path):
    replace(path, "X", data=np.zeros((9, 10_000_000), "u1"), chunks=(9, 1_000_000), compression="gzip")
    refuse(path, "declares 90,000,000 bytes")


def test_memory_limit(path):
    replace(path, "obs/_index", data=["x" * 40_000_000] + ["y"] * 8, dtype=h5py.string_dtype())
    refuse(path, "memory|GiB|cannot be read", ReadLimits(memory_bytes=48 << 20))


def test_a_silent_reader_is_ended(path, monkeypatch):
    from cellscribe.engine.cells import child

    monkeypatch.setattr(child, "_BOOT", "import time; time.sleep(60)")
    start = time.monotonic()
    refuse(path, "busy for 0.3 s", ReadLimits(seconds=0.3))
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("end", ["os.abort()", "os.kill(os.getpid(), 11)", "os.write(1, b'x' * 999)", "os._exit(3)"])
def test_a_crashed_reader_is_a_sentence(path, monkeypatch, end):
    from cellscribe.engine.cells import child

    monkeypatch.setattr(child, "_BOOT", f"import os; {end}")
    refuse(path, "reading process")


def test_reader_starts_fast_and_imports_little(path):
    start = time.monotonic()
    with open_cells(path) as source:
        assert time.monotonic() - start < 5  # about 0.2 s on an idle machine
        pid = source._store._child._process.pid
        maps = Path(f"/proc/{pid}/maps")
        assert not maps.exists() or "pandas" not in maps.read_text()


@pytest.mark.parametrize("layout", [sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize(
    ("part", "change", "match"),
    [
        ("indices", lambda a: a + 99, "outside its"),
        ("indices", lambda a: a - 1, "outside its"),
        ("indptr", lambda a: a[::-1], "pointers"),
        ("indptr", lambda a: np.concatenate([a[:2], a[3:4], a[2:3], a[4:]]), "pointers"),
        ("indptr", lambda a: a[:-1], "differ in length"),
        ("indptr", lambda a: a.astype(float), "not whole numbers"),
        ("data", lambda a: a[:-3], "differ in length"),
        ("data", lambda a: np.where(np.arange(len(a)) == 5, np.nan, a), "NaN"),
        ("data", lambda a: np.where(np.arange(len(a)) == 5, np.inf, a), "infinite"),
        ("data", lambda a: np.where(np.arange(len(a)) == 5, -1, a), "below zero"),
        ("data", lambda a: a.astype("c8"), "not numbers"),
    ],
)
def test_damaged_sparse_matrix(cells, path, layout, part, change, match):
    cells.X = layout(cells.X)
    cells.write_h5ad(path)
    with h5py.File(path) as file:
        changed = change(file[f"X/{part}"][()])
    replace(path, f"X/{part}", data=changed)
    refuse(path, match)


def test_gene_twice_in_a_cell(path):
    with h5py.File(path) as file:
        indices = file["X/indices"][()]
    indices[1] = indices[0]
    replace(path, "X/indices", data=indices)
    refuse(path, "one gene twice.*sum_duplicates")


def test_unsorted_columns_are_sorted(cells, path):
    with h5py.File(path) as file:
        indices, data, stop = file["X/indices"][()], file["X/data"][()], file["X/indptr"][1]
    for name, array in (("indices", indices), ("data", data)):
        array[:stop] = array[:stop][::-1]
        replace(path, f"X/{name}", data=array)
    with open_cells(path) as source:
        np.testing.assert_array_equal(next(source.blocks()).matrix.toarray(), cells.X.toarray())


@pytest.mark.parametrize("value", [np.nan, np.inf, -2.0])
@pytest.mark.parametrize("where", ["memory", "file"])
def test_bad_value_late_in_a_large_matrix(make, tmp_path, value, where):
    cells = make(3000)
    cells.X = cells.X.toarray()
    cells.X[1100, 4] = value
    cells.write_h5ad(tmp_path / "a.h5ad")
    given = cells if where == "memory" else tmp_path / "a.h5ad"
    refuse(given, "cell1100", ReadLimits(full_check_values=10))
    refuse(given, "NaN|infinite|below zero")


def test_wrong_shapes_and_names(cells, path, make):
    replace(path, "var/_index", data=["A", "B"], dtype=h5py.string_dtype())
    refuse(path, "for 9 cells and 2 genes")
    cells.write_h5ad(path)
    replace(path, "obs/_index", data=np.arange(9))
    refuse(path, "holds no names.*astype")
    cells.obs_names = ["same"] * 9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells.write_h5ad(path)
    refuse(path, "two cells 'same'.*obs_names_make_unique")
    refuse(cells, "two cells 'same'")
    refuse(make()[:0].copy(), "0 cells")
    refuse(make()[:, :0].copy(), "0 genes")
    make()[:0].copy().write_h5ad(path)
    refuse(path, "0 cells")


def test_damaged_anndata_in_memory(cells, make):
    cells.X.indices[3] = 400
    refuse(cells, "outside its 12 columns")
    cells = make()
    cells.X.data[3] = np.nan
    refuse(cells, "NaN in cell 'cell0'")
    cells = make()
    cells.X = None
    refuse(cells, "no matrix")


def test_damaged_obs_column(path):
    replace(path, "obs/size", data=np.arange(4))
    with open_cells(path) as source, pytest.raises(InputError, match=r"obs column 'size'.*damaged"):
        source.obs_column("size")
    replace(path, "obs/kind/codes", data=np.full(9, 77, "i1"))
    with open_cells(path) as source:
        assert source.obs_column("kind").isna().all()
        assert isinstance(source.obs_column("kind").dtype, pd.CategoricalDtype)
