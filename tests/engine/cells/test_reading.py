from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData, read_h5ad

from cellscribe.engine.cells import open_cells
from cellscribe.engine.errors import InputError, UsageError

LAYOUTS = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "csr_array": sp.csr_array, "dense": lambda m: m.toarray()}
DTYPES = ("float32", "float64", "float16", "int64", "int32", "uint16", "uint8", "bool", ">f4")


def dense(source, rows=None, block_cells=4):
    return np.vstack([block.matrix.toarray() for block in source.blocks(rows, block_cells)])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("place", ["memory", "file", "backed"])
def test_every_layout_reads_the_same(cells, tmp_path, layout, place):
    expected = cells.X.toarray()
    cells.X = LAYOUTS[layout](cells.X)
    cells.write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    given = {"memory": cells, "file": tmp_path / "a.h5ad", "backed": None}[place]
    if given is None:
        given = read_h5ad(tmp_path / "a.h5ad", backed="r")
    with open_cells(given) as source:
        assert (source.n_cells, source.n_genes) == cells.shape
        assert source.value_kind == "counts"
        np.testing.assert_array_equal(dense(source), expected)
        order = np.array([7, 0, 3, 3, 8])
        np.testing.assert_array_equal(dense(source, order, 2), expected[order])
        assert list(source.obs_names) == list(cells.obs_names)
        said = " ".join(source.notes)
        assert ("CSC" in said) == (layout == "csc" and place == "file")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["csr", "dense"])
def test_every_dtype_reads(cells, tmp_path, dtype, layout):
    counts = (cells.X > 0).toarray() if dtype == "bool" else cells.X.toarray()
    typed = counts.astype(dtype)
    can_sparse = dtype not in ("float16", ">f4")
    cells.X = sp.csr_matrix(typed) if layout == "csr" and can_sparse else typed
    cells.write_h5ad(tmp_path / "a.h5ad")
    for given in (cells, tmp_path / "a.h5ad"):
        with open_cells(given) as source:
            np.testing.assert_array_equal(dense(source), counts)
            assert next(source.blocks()).matrix.dtype == np.float32


def test_file_and_memory_agree(cells, tmp_path):
    cells.write_h5ad(tmp_path / "a.h5ad")
    with open_cells(cells) as one, open_cells(tmp_path / "a.h5ad") as two:
        assert one.fingerprint() == two.fingerprint()
        assert two.path == tmp_path / "a.h5ad"
        for name in ("kind", "size"):
            pd.testing.assert_series_equal(one.obs_column(name), two.obs_column(name), check_dtype=False)
        cells.X[0, 0] += 1
    with open_cells(cells) as three, open_cells(tmp_path / "a.h5ad") as two:
        assert three.fingerprint() != two.fingerprint()


def test_nullable_and_text_columns(cells, tmp_path):
    cells.obs["maybe"] = pd.array([1, None, 3] * 3, dtype="Int64")
    cells.obs["flag"] = np.arange(9) % 2 == 0
    cells.obs["words"] = [f"w{i}" for i in range(9)]
    cells.write_h5ad(tmp_path / "a.h5ad")
    with open_cells(tmp_path / "a.h5ad") as source:
        assert source.obs_column("maybe").isna().tolist() == [False, True, False] * 3
        assert source.obs_column("words").astype(str).tolist() == [f"w{i}" for i in range(9)]
        assert source.obs_column("flag").tolist() == (np.arange(9) % 2 == 0).tolist()


def test_interleaved_and_abandoned_readers(cells, tmp_path):
    cells.write_h5ad(tmp_path / "a.h5ad")
    expected = cells.X.toarray()
    with open_cells(tmp_path / "a.h5ad") as source:
        next(source.blocks(block_cells=2))
        pairs = zip(source.blocks(block_cells=3), source.blocks(block_cells=3), strict=True)
        for one, two in pairs:
            source.obs_column("kind")
            np.testing.assert_array_equal(one.matrix.toarray(), two.matrix.toarray())
            np.testing.assert_array_equal(one.matrix.toarray(), expected[one.rows])


def logged(cells):
    counts = cells.X.toarray()
    return sp.csr_matrix(np.log1p(counts / counts.sum(1, keepdims=True) * 1e4))


def test_counts_are_preferred_wherever_they_are(cells):
    counts = cells.X.copy()
    cells.X = logged(cells)
    with open_cells(cells) as source:
        assert (source.value_kind, source.value_origin) == ("lognorm", "X")
    cells.layers["raw_counts"] = counts
    with open_cells(cells) as source:
        assert (source.value_kind, source.value_origin) == ("counts", "layers['raw_counts']")
        assert "X holds log-normalised" in source.value_note
    with open_cells(cells, values="lognorm") as source:
        assert source.value_origin == "X"
    with open_cells(cells, layer="X") as source:
        assert source.value_kind == "lognorm"
    del cells.layers["raw_counts"]
    wide = AnnData(counts, var=cells.var, obs=cells.obs)
    cells.raw = wide
    with open_cells(cells[:, :5].copy()) as source:
        assert (source.value_origin, source.n_genes) == ("raw.X", 12)


def test_scaled_values_are_refused_with_the_way_out(cells, tmp_path):
    cells.layers["mine"] = cells.X.copy()
    cells.X = cells.X.toarray() - 1
    cells.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match=r"below zero.*layers\['mine'\]"):
        open_cells(tmp_path / "a.h5ad")
    with open_cells(tmp_path / "a.h5ad", layer="mine") as source:
        assert source.value_kind == "counts"
    with pytest.raises(UsageError, match="choose one of: X, mine"):
        open_cells(tmp_path / "a.h5ad", layer="other")


def test_contradictions(cells):
    cells.X[0, 0] = 500
    with pytest.raises(InputError, match="not log-normalised"):
        open_cells(cells, values="lognorm")
    cells.X = cells.X * np.float32(1.37)
    with pytest.raises(InputError, match="neither counts nor"):
        open_cells(cells)
    with open_cells(cells, values="counts") as source:
        assert "as asked" in source.value_note
    with pytest.raises(UsageError, match="choose auto"):
        open_cells(cells, values="guess")


@pytest.mark.parametrize(("bad", "n_bad"), [(np.nan, 8), (np.inf, 30), (-1.0, 8)])
def test_many_bad_cells_are_passed_over_only_where_the_values_are_named(make, tmp_path, bad, n_bad):
    cells = make(40)
    cells.X[:n_bad, 4] = bad
    cells.write_h5ad(tmp_path / "a.h5ad")
    said = rf"{n_bad} of 40 cells \({100 * n_bad // 40} %\) in X of a.h5ad hold .*more than the 10 %.*--input counts or"
    with pytest.raises(InputError, match=said):
        open_cells(tmp_path / "a.h5ad", is_lenient=True)
    with open_cells(tmp_path / "a.h5ad", values="counts", is_lenient=True) as source:
        read = dense(source)
        assert sorted(source.bad_cells) == list(range(n_bad))
        assert f"{n_bad} of 40 cells" in source.value_note
        np.testing.assert_array_equal(read[n_bad:], cells.X.toarray()[n_bad:])
    with pytest.raises(InputError, match="cell 'cell0'"):
        open_cells(tmp_path / "a.h5ad", values="counts")


def test_scaled_values_stay_refused_however_lenient(make, tmp_path):
    cells = make(40)
    cells.X = cells.X.toarray() - 1
    cells.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match="so it is scaled or damaged"):
        open_cells(tmp_path / "a.h5ad", is_lenient=True)
    cells.layers["counts"] = cells.X + 1
    cells.write_h5ad(tmp_path / "a.h5ad")
    with open_cells(tmp_path / "a.h5ad", values="counts", is_lenient=True) as source:
        assert source.value_origin == "layers['counts']"


def test_packaged_blood_cells_use_raw():
    scanpy = pytest.importorskip("scanpy")
    path = f"{scanpy.__path__[0]}/datasets/10x_pbmc68k_reduced.h5ad"
    with open_cells(path) as source:
        assert (source.value_kind, source.value_origin, source.n_cells) == ("lognorm", "raw.X", 700)
        assert "X holds scaled values" in source.value_note
        labels = source.obs_column("bulk_labels")
        assert labels.loc["AAAGCCTGGCTAAC-1"] == "CD14+ Monocyte"


@pytest.mark.parametrize(("name", "shape"), [("zheng68k", (165, 9621)), ("scp1884", (1020, 18708))])
def test_real_files(shared, name, shape):
    with open_cells(shared / f"data/{name}.h5ad") as source:
        assert (source.n_cells, source.n_genes) == shape
        assert sum(len(block.rows) for block in source.blocks(block_cells=300)) == shape[0]


def test_names_that_are_not_there(cells):
    with open_cells(cells) as source:
        np.testing.assert_array_equal(source.rows_of(["cell3", "cell0"]), [3, 0])
        with pytest.raises(InputError, match=r"did you mean.*'cell8'"):
            source.rows_of(["cel8"])
        with pytest.raises(InputError, match="did you mean 'kind'"):
            source.obs_column("kinds")


@pytest.mark.parametrize("values", ["auto", "counts"])
def test_a_count_that_is_hard_to_believe_is_named(cells, values):
    counts = cells.X.toarray().astype(np.float64)
    cells.X = sp.csr_matrix(counts)
    with open_cells(cells, values=values) as source:
        assert "hard to believe" not in source.value_note
    counts[[3, 5], 0] = 1e30, np.nextafter(1e7, 2e7) if values == "counts" else 1e9
    cells.X = sp.csr_matrix(counts)
    with open_cells(cells, values=values) as source:
        name = str(source.obs_names[3])
        assert source.value_note.endswith(f"A count above 10,000,000 is hard to believe; look at cell {name!r}.")
