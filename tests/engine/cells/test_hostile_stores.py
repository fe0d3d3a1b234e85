""".zarr stores that lie, trick or are damaged: each is one sentence, and nothing of theirs is run."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import scipy.sparse as sp
from refusing import refuse, refuse_here
from writing import zarr_store

from cellscribe.engine.cells import ReadLimits, child

pytest.importorskip("zarr", minversion="3")


@pytest.fixture(params=[2, 3])
def store(request, cells, tmp_path):
    return zarr_store(cells, tmp_path, request.param)


@pytest.fixture
def old(cells, tmp_path):
    return zarr_store(cells, tmp_path, 2)


@pytest.fixture
def new(cells, tmp_path):
    return zarr_store(cells, tmp_path, 3)


def change(path, **items):
    """Change the metadata of a node."""
    path.write_text(json.dumps(json.loads(path.read_text()) | items))


def leaf(store, key):
    """Return the folder of an array; anndata 0.13 keeps names as a group of values and a mask."""
    return store / key / "values" if (store / key / "values").exists() else store / key


def array_file(store, key):
    folder = leaf(store, key)
    return next(path for path in (folder / ".zarray", folder / "zarr.json") if path.exists())


def chunk(store, key):
    return next(p for p in sorted(leaf(store, key).rglob("*")) if p.is_file() and not p.name.startswith((".", "zarr")))


def test_a_pickle_is_never_loaded(old, tmp_path):
    import numcodecs

    class Trap:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/sprung",)

    names = np.array([Trap() for _ in range(9)], dtype=object)
    chunk(old, "obs/_index").write_bytes(numcodecs.Pickle().encode(names))
    for filters in ([{"id": "pickle", "protocol": 5}], [{"id": "vlen-utf8"}, {"id": "pickle"}]):
        change(array_file(old, "obs/_index"), filters=filters, compressor=None)
        refuse_here(old, "codec 'pickle', which is not read from files of others")
    change(array_file(old, "obs/_index"), filters=[], compressor={"id": "pickle"})
    refuse_here(old, "codec 'pickle'")
    refuse(old, "codec 'pickle'")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("codec", ["json2", "msgpack2", "categorize", "my-own"])
def test_other_codecs_for_objects(old, codec):
    change(array_file(old, "obs/_index"), filters=[{"id": codec}])
    refuse_here(old, f"codec '{codec}'")


def test_objects_and_records(old):
    change(array_file(old, "obs/_index"), filters=None)
    refuse_here(old, "Python objects, which are never read")
    change(array_file(old, "X/data"), dtype=[["a", "<i4"], ["b", "<i4"]])
    change(array_file(old, "obs/_index"), filters=[{"id": "vlen-utf8"}])
    refuse_here(old, "X/data of cells.zarr")
    change(array_file(old, "X/data"), dtype="<M8[ns]")
    refuse_here(old, "neither numbers nor names")


@pytest.mark.parametrize(
    "codecs",
    [
        [{"name": "numcodecs.pickle", "configuration": {}}],
        [{"name": "bytes"}, {"name": "my-own"}],
        [{"name": "sharding_indexed", "configuration": {"chunk_shape": [4], "codecs": [{"name": "my-own"}]}}],
        ["my-own"],
    ],
)
def test_codecs_of_format_3(new, codecs):
    change(array_file(new, "X/data"), codecs=codecs)
    refuse_here(new, "with the codec '(numcodecs.pickle|my-own)'")


@pytest.mark.parametrize(
    ("items", "match"),
    [
        ({"data_type": "bytes"}, "neither numbers nor names"),
        ({"data_type": {"name": "struct"}}, "neither numbers nor names"),
        ({"storage_transformers": [{"name": "x"}]}, "storage transformer"),
        ({"chunk_grid": {"name": "odd"}}, "chunk grid"),
        ({"chunk_grid": 3}, "are damaged"),
        ({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0]}}}, "are damaged"),
        ({"shape": [-4]}, "are damaged"),
        ({"shape": "many"}, "are damaged"),
        ({"shape": [10, 10]}, "are damaged"),
        ({"codecs": None}, "are damaged"),
        ({"node_type": "odd"}, "are damaged"),
        ({"zarr_format": 9}, "are damaged"),
        ({"shape": [5]}, "differ in length"),
        ({"fill_value": "odd"}, "cannot be read"),
    ],
)
def test_metadata_that_lie(new, items, match):
    change(array_file(new, "X/data"), **items)
    refuse_here(new, match)


def test_declared_far_beyond_stored(store):
    many = 20_000_000_000
    for key in ("X/data", "X/indices"):
        change(array_file(store, key), shape=[many])
    assert "declares 80,000,000,000 bytes" in refuse_here(store, "so it is damaged or hostile")


def test_a_chunk_larger_than_memory(store):
    path = array_file(store, "X/data")
    large = {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1 << 40]}}}
    change(path, **(large if path.name == "zarr.json" else {"chunks": [1 << 40]}))
    refuse_here(store, "so it is damaged or hostile")
    refuse(store, "GiB|memory|cannot be read", ReadLimits(max_expansion=1e18, memory_bytes=256 << 20))


@pytest.mark.parametrize("key", ["X", "X/data", "obs", "obs/_index", "var/_index"])
@pytest.mark.parametrize("way", ["node", "chunk"])
def test_links(store, tmp_path, key, way):
    path = store / key if way == "node" else chunk(store, key)
    shutil.move(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    is_inside = way == "chunk" and key in ("X", "obs")
    refuse_here(store, "has a link|is a link" if not is_inside else "link")


def test_linked_metadata_and_odd_files(store, tmp_path):
    path = array_file(store, "obs/_index")
    shutil.move(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    refuse_here(store, "has a link")
    path.unlink()
    os.mkfifo(path)
    refuse_here(store, "not a regular file")
    path.unlink()
    refuse_here(store, "has no metadata")


def test_names_that_leave_the_store(store, tmp_path):
    for name in ("../../cells", "..", "/etc", "a/b", ""):
        path = store / "obs/.zattrs"
        if path.exists():
            change(path, _index=name)
        else:
            attributes = json.loads((store / "obs/zarr.json").read_text())["attributes"]
            change(store / "obs/zarr.json", attributes=attributes | {"_index": name})
        refuse_here(store, "has no obs/index")


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "3"])
def test_metadata_that_are_none(store, text):
    array_file(store, "X/data").write_text(text)
    refuse_here(store, "The metadata of X/data of cells.zarr")


@pytest.mark.parametrize("key", ["X/data", "X/indices", "X/indptr", "obs/_index"])
def test_damaged_chunks(store, key):
    path = chunk(store, key)
    path.write_bytes(path.read_bytes()[:-5] if key == "X/data" else os.urandom(60))
    refuse_here(store, "cells.zarr|X of cells")


def test_missing_chunks(make, tmp_path):
    cells = make(9)
    store = zarr_store(cells, tmp_path)
    chunk(store, "X/data").unlink()
    refuse_here(store, "1 chunks of /X/data are missing")
    shutil.rmtree(store / "X/data")
    refuse_here(store, "has no X/data")


def test_what_is_no_store_of_cells(store, tmp_path):
    shutil.rmtree(store / "obs")
    refuse_here(store, "but none of cells")
    shutil.copytree(leaf(store, "var/_index"), tmp_path / "array.zarr")
    refuse_here(tmp_path / "array.zarr", "is one array|is a folder without")


@pytest.mark.parametrize("layout", [sp.csr_matrix, sp.csc_matrix])
def test_damaged_sparse_matrix(make, tmp_path, layout):
    cells = make(9)
    cells.X = layout(cells.X)
    cells.X.indices[3] = 4000
    refuse_here(zarr_store(cells, tmp_path), "outside its")


@pytest.mark.parametrize(
    ("package", "version", "match"),
    [
        ("numcodecs", "0.16.5", "needs numcodecs 0.16.6 and numcodecs 0.16.5 is installed.*cellscribe\\[zarr\\]"),
        ("zarr", "2.18.7", "needs zarr 3 and zarr 2.18.7 is installed"),
        ("zarr", None, "needs zarr 3 and no zarr is installed"),
    ],
)
def test_packages_that_are_old_or_missing(new, monkeypatch, package, version, match):
    boot = f"""
import importlib.metadata as m
known = m.version
def version(name):
    if name != {package!r}: return known(name)
    if {version!r} is None: raise m.PackageNotFoundError(name)
    return {version!r}
m.version = version
"""
    monkeypatch.setattr(child, "_BOOT", boot + child._BOOT)
    refuse(new, match)
