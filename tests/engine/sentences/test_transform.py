"""Whole sources to sentences: golden order, fit, filters, files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from anndata import AnnData
from golden_sentences import Golden

from cellscribe.engine.cells import open_cells
from cellscribe.engine.errors import InputError, UsageError
from cellscribe.engine.sentences.files import write_sentences
from cellscribe.engine.sentences.fit import fit_ranks
from cellscribe.engine.sentences.transform import Transform, TransformOptions

GOLDEN = TransformOptions(min_genes=200, min_cells=3)


def small(num_cells: int = 30, *, empty: bool = False) -> AnnData:
    counts = np.random.default_rng(1).poisson(1.0, (num_cells, 50)).astype(np.float32)
    if empty:
        counts[4] = 0
    cells = AnnData(sp.csr_matrix(counts))
    cells.obs_names, cells.var_names = ([f"{kind}{i}" for i in range(n)] for kind, n in (("c", num_cells), ("g", 50)))
    cells.obs["kind"] = ["T cell" if i % 2 else None for i in range(num_cells)]
    cells.obs["depth"] = np.arange(num_cells) / 2
    return cells


def with_columns() -> tuple[AnnData, tuple[str, ...]]:
    """Cells with a column of every type that obs may have."""
    cells, number = small(), np.arange(30)
    cells.obs["half"], cells.obs["single"] = number.astype(np.float16), (number / 3).astype(np.float32)
    cells.obs["is_good"], cells.obs["byte"] = number % 2 == 0, number.astype(np.uint8)
    cells.obs["count"] = pd.array([None, *range(29)], dtype="Int64")
    cells.obs["day"] = pd.date_range("2020-01-01", periods=30)
    return cells, tuple(cells.obs.columns)


def test_order_of_the_original(golden: Golden) -> None:
    with open_cells(golden.cells) as source:
        transform = Transform(source, GOLDEN)
        assert list(transform.genes.words) == golden.vocab["vocab_upper"]
        blocks = list(transform.blocks())
    sentences = [text.split(" ") for block in blocks for text in block.texts]
    assert [name for block in blocks for name in block.names] == golden.sentences["cell_names"].tolist()
    np.testing.assert_array_equal(transform.num_cells, golden.vocab["n_cells_expressing"])
    order, group, indptr = (golden.sentences[name] for name in ("order", "tie_group", "indptr"))
    words = np.array(golden.vocab["vocab_upper"], dtype=object)
    for i, mine in enumerate(sentences):
        at = slice(*indptr[i : i + 2])
        theirs = words[order[at]]
        assert len(mine) == len(theirs)
        for tie in np.unique(group[at]):
            same = group[at] == tie
            assert set(np.array(mine, dtype=object)[same]) == set(theirs[same])


def test_fit_of_the_original(golden: Golden) -> None:
    with open_cells(golden.cells) as source:
        transform = Transform(source, GOLDEN)
        list(transform.blocks())
    fit = transform.fit()
    wanted = golden.benchmark["runs"][0]
    assert wanted["sample_idxs"] == "all"
    assert fit.num_cells == 60
    for mine, theirs in (
        (fit.slope, "slope"), (fit.intercept, "intercept"), (fit.r_squared, "r_squared"),
        (fit.pearson_r, "pearson_r_statistic"), (fit.spearman_r, "spearman_r_statistic"),
    ):  # fmt: skip
        assert mine == pytest.approx(wanted[theirs], abs=1e-6)


def test_fit_does_not_depend_on_what_sentences_keep_nor_on_the_order() -> None:
    fits = []
    for options, rows in (
        (TransformOptions(), None),
        (TransformOptions(num_genes=5, fit_cells=1024), np.arange(30)[::-1]),
    ):
        with open_cells(small()) as source:
            transform = Transform(source, options, rows=rows)
            list(transform.blocks())
            fits.append(transform.fit())
    assert fits[0].slope == pytest.approx(fits[1].slope, abs=1e-12)
    assert fits[0].num_points == fits[1].num_points


def test_the_fit_takes_only_so_many_cells() -> None:
    with open_cells(small()) as source:
        transform = Transform(source, TransformOptions(fit_cells=7))
        list(transform.blocks())
        assert transform.fit().num_cells == 7


def test_files(tmp_path: Path) -> None:
    with open_cells(small()) as source:
        transform = Transform(source, TransformOptions(num_genes=20))
        assert write_sentences(transform, tmp_path, columns=("kind", "depth")) == 30
    lines = (tmp_path / "sentences.tsv").read_text().splitlines()
    table = pq.read_table(tmp_path / "sentences.parquet")
    assert lines == [f"{a}\t{b}" for a, b in zip(*(table.column(i).to_pylist() for i in (0, 1)), strict=True)]
    assert table.column("kind").to_pylist()[:2] == [None, "T cell"]
    assert table.column("depth").to_pylist()[3] == 1.5
    assert table.column("num_genes").to_pylist() == [len(line.split("\t")[1].split(" ")) for line in lines]
    with pa.ipc.open_stream(str(tmp_path / "arrow" / "data-00000-of-00001.arrow")) as stream:
        assert stream.read_all() == table
    info = json.loads((tmp_path / "arrow" / "dataset_info.json").read_text())
    assert info["features"]["depth"] == {"dtype": "float64", "_type": "Value"}
    genes = [line.split("\t") for line in (tmp_path / "genes.tsv").read_text().splitlines()]
    assert genes[0] == ["gene", "num_cells", "name"]
    assert genes[1] == ["G0", str(int((small().X[:, 0] > 0).sum())), "g0"]


def test_the_arrow_folder_opens_in_the_datasets_library(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the datasets library is not installed")
    cells, columns = with_columns()
    with open_cells(cells) as source:
        write_sentences(Transform(source), tmp_path, ("arrow", "parquet"), columns=columns)
    loaded = datasets.load_from_disk(str(tmp_path / "arrow"))
    assert {name: value.dtype for name, value in loaded.features.items()} == {
        "cell_name": "string", "cell_sentence": "string", "num_genes": "int32", "kind": "string", "depth": "float64",
        "half": "float16", "single": "float32", "is_good": "bool", "byte": "uint8", "count": "int64", "day": "string",
    }  # fmt: skip
    assert loaded.to_list() == pq.read_table(tmp_path / "sentences.parquet").to_pylist()
    assert loaded.map(lambda row: {"n": len(row["cell_sentence"].split(" "))})["n"] == loaded["num_genes"]
    assert loaded.train_test_split(0.2, seed=0)["test"].num_rows == 6


def test_columns_keep_their_types(tmp_path: Path) -> None:
    cells, columns = with_columns()
    with open_cells(cells) as source:
        write_sentences(Transform(source), tmp_path, ("parquet",), columns=columns)
    table = pq.read_table(tmp_path / "sentences.parquet")
    assert {field.name: str(field.type) for field in table.schema} == {
        "cell_name": "string", "cell_sentence": "string", "num_genes": "int32", "kind": "string", "depth": "double",
        "half": "halffloat", "single": "float", "is_good": "bool", "byte": "uint8", "count": "int64", "day": "string",
    }  # fmt: skip
    assert table.column("count").to_pylist()[:3] == [None, 0, 1]
    assert table.column("day").to_pylist()[1] == "2020-01-02 00:00:00"
    assert table.column("byte").to_pylist() == list(range(30))


def test_an_empty_cell_is_an_error_unless_it_is_left_out() -> None:
    with open_cells(small(empty=True)) as source:
        with pytest.raises(InputError, match=r"'c4'.*--min-genes 1"):
            list(Transform(source).blocks())
        kept = Transform(source, TransformOptions(min_genes=1))
        assert kept.census.num_left_out == 1
        assert sum(len(block.texts) for block in kept.blocks()) == 29


def test_a_cell_whose_genes_were_left_out_is_an_error_too() -> None:
    cells = small()
    alone = np.zeros((30, 1), np.float32)
    alone[0] = 1
    dense = np.hstack([cells.X.toarray(), alone])
    dense[0, :-1] = 0
    other = AnnData(sp.csr_matrix(dense), obs=cells.obs)
    with open_cells(other) as source, pytest.raises(InputError, match="expresses no gene"):
        list(Transform(source, TransformOptions(min_cells=2)).blocks())


def test_bad_input(tmp_path: Path) -> None:
    with open_cells(small()) as source:
        with pytest.raises(InputError, match="--min-genes"):
            Transform(source, TransformOptions(min_genes=51))
        with pytest.raises(UsageError, match="'csv' is no format"):
            write_sentences(Transform(source), tmp_path, ("csv",))
        with pytest.raises(InputError, match="no obs column"):
            write_sentences(Transform(source), tmp_path, columns=("nothing",))
    with pytest.raises(InputError, match="too few or too even"):
        fit_ranks(np.zeros(2, np.int64), np.zeros(2), 1)


def test_log_normalised_values_give_the_same_sentences() -> None:
    counts = small()
    logged = counts.copy()
    totals = np.asarray(counts.X.sum(1)).ravel()
    logged.X = sp.diags(np.median(totals) / totals) @ counts.X
    logged.X.data = np.log1p(logged.X.data).astype(np.float32)
    logged.X = sp.csr_matrix(logged.X, dtype=np.float32)
    found, fits = [], []
    for cells in (counts, logged):
        with open_cells(cells) as source:
            transform = Transform(source)
            found.append([text for block in transform.blocks() for text in block.texts])
            fits.append(transform.fit())
    assert found[0] == found[1]
    assert fits[0].slope == pytest.approx(fits[1].slope, abs=1e-5)
