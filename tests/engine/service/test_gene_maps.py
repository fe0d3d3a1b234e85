from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import anndata as ad
import numpy as np
import pytest

from cellscribe.engine.cells import CellTokenizer, open_cells
from cellscribe.engine.cells.genes import match_genes
from cellscribe.engine.errors import CellscribeError
from cellscribe.engine.model import Model
from cellscribe.engine.service.feeding import fed_cells
from cellscribe.engine.service.gene_maps import GeneMapReader
from cellscribe.engine.service.given import gene_maps
from cellscribe.engine.service.map_values import GeneMap
from cellscribe.engine.service.orders import FedCell
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.schemas import Cells


@pytest.fixture(scope="module")
def reader(demo: Model) -> GeneMapReader:
    return GeneMapReader(demo.bundle)


def gene_map(values: dict[str, float], name: str = "c1") -> GeneMap:
    return GeneMap(name, list(values), np.array(list(values.values()), np.float64))


def from_file(
    demo: Model, names: Sequence[str], values: Any, ids: Sequence[str], but: tuple[str, ...] = ()
) -> list[FedCell]:
    """What the engine makes of the same cells as AnnData."""
    stands_for = match_genes(names, demo.bundle.vocabulary).token_of_column  # a file needs the genes it lacks, too
    is_there = {*names, *(demo.bundle.vocabulary.tokens[one] for one in stands_for if one >= 0), *but}
    more = [gene for gene in demo.bundle.vocabulary.tokens if gene not in is_there and not gene.startswith("<")]
    adata = ad.AnnData(np.hstack([np.asarray(values, np.float32), np.zeros((len(ids), len(more)), np.float32)]))
    adata.var_names, adata.obs_names = [*names, *more], list(ids)
    source = open_cells(adata)
    tokenizer = CellTokenizer(demo.bundle.manifest.cell_input, demo.bundle.vocabulary, source)
    found = fed_cells(tokenizer.batches(None, 32), dict(enumerate(ids)), demo.bundle.vocabulary.tokens)
    return [found[row] for row in sorted(found)]


def fed(cell: FedCell) -> dict[str, float]:
    """What a cell is fed, by gene, in no order."""
    return {gene: x for gene, x in zip(list(cell.axis.symbols), cell.values.tolist(), strict=True) if x}


def counts_of(cells: ad.AnnData) -> np.ndarray:
    """Whole numbers that look like counts."""
    return np.rint(np.expm1(cells.X.toarray() if hasattr(cells.X, "toarray") else cells.X)).astype(np.float32)


@pytest.mark.parametrize("kind", ["counts", "lognorm"])
def test_a_cell_is_fed_as_from_a_file(demo: Model, reader: GeneMapReader, cells: ad.AnnData, kind: str) -> None:
    values = counts_of(cells)[:4] if kind == "counts" else cells.X[:4].toarray()
    names, ids = list(cells.var_names), list(cells.obs_names[:4])
    maps = [gene_map({g: v for g, v in zip(names, row.tolist(), strict=True) if v}, i)
            for i, row in zip(ids, values, strict=True)]  # fmt: skip
    found, genes = reader.read(maps, "auto")
    assert [fed(one) for one in found] == [fed(one) for one in from_file(demo, names, values, ids)]
    assert genes.known > 0
    assert genes.unknown > 0


def test_the_order_of_genes_says_nothing(reader: GeneMapReader, cells: ad.AnnData) -> None:
    row = dict(zip(cells.var_names, counts_of(cells)[0].tolist(), strict=True))
    (one,), _ = reader.read([gene_map(row)], "auto")
    (other,), _ = reader.read([gene_map(dict(reversed(row.items())))], "auto")
    assert fed(one) == fed(other)


def test_unknown_genes_count_towards_the_total(demo: Model, cells: ad.AnnData) -> None:
    reader = GeneMapReader(demo.bundle)
    row = {"CD3D": 4.0, "LTB": 9.0, "NOT-A-GENE": 5_000.0, "NOR-THIS": 12.0}
    (found,), genes = reader.read([gene_map(row)], "counts")
    (expected,) = from_file(demo, list(row), [list(row.values())], ["c1"])
    assert fed(found) == fed(expected)
    (without,), _ = reader.read([gene_map({"CD3D": 4.0, "LTB": 9.0})], "counts")
    assert (fed(found) != fed(without)) == (demo.bundle.manifest.cell_input.n_bins == 0)
    assert genes.as_dict() == {
        "known": 2, "unknown": 2, "examples": ["NOT-A-GENE", "NOR-THIS"],
        "sentence": "Genes: 2 of 4 names are known.", "values": {"counts": 1},
    }  # fmt: skip


def test_counts_of_one_gene_are_added_up_and_said_to_be(reader: GeneMapReader) -> None:
    (found,), genes = reader.read([gene_map({"CD3D": 1.0, "ENSG00000167286": 6.0, "LYZ": 3.0})], "auto")
    (expected,), plain = reader.read([gene_map({"CD3D": 7.0, "LYZ": 3.0})], "auto")
    assert fed(found) == fed(expected)
    assert plain.twice is None
    assert str(genes.as_dict()["sentence"]).endswith(
        "'CD3D' and 'ENSG00000167286' are one gene (and so may be others); their counts were added up."
    )


@pytest.mark.parametrize("neighbour", [{"LTB": 1.5}, {"LTB": 3.0}, {"LTB": 0.25, "GZMK": 19.0}])
def test_neighbours_do_not_decide_what_the_values_of_a_cell_are(
    reader: GeneMapReader, neighbour: dict[str, float]
) -> None:
    row = {"CD3D": 4.0, "LTB": 9.0, "NOT-A-GENE": 5_000.0}
    (alone,), told = reader.read([gene_map(row)], "auto")
    assert told.kinds == ("counts",)
    found, genes = reader.read([gene_map(neighbour, "n"), gene_map(row), gene_map(neighbour, "m")], "auto")
    assert fed(found[1]) == fed(alone)
    assert [one.cell_id for one in found] == ["n", "c1", "m"]
    kind = "counts" if neighbour == {"LTB": 3.0} else "lognorm"
    assert genes.kinds == (kind, "counts", kind)
    assert genes.as_dict()["values"] == ({"counts": 3} if kind == "counts" else {"lognorm": 2, "counts": 1})


def test_many_unknown_logarithms_are_still_logarithms(reader: GeneMapReader) -> None:
    row = {"CD3D": 1.5, "LTB": 2.25} | {f"NOT-A-GENE-{i}": 3.5 for i in range(40)}  # 140 together
    (found,), genes = reader.read([gene_map(row)], "auto")
    (expected,), _ = reader.read([gene_map({"CD3D": 1.5, "LTB": 2.25})], "lognorm")
    assert fed(found) == fed(expected)
    assert (genes.known, genes.unknown) == (2, 40)


def test_halves_that_add_up_to_wholes_are_no_counts(reader: GeneMapReader) -> None:
    row = {"CD3D": 1.0, "LTB": 2.0, "NOT-A-GENE": 0.5, "NOR-THIS": 0.5}
    (auto,), _ = reader.read([gene_map(row)], "auto")
    (logged,), _ = reader.read([gene_map(row)], "lognorm")
    assert fed(auto) == fed(logged)
    with pytest.raises(RequestError, match="'CD3D' and 'ENSG00000167286' of cell 'c1' are one gene"):
        reader.read([gene_map({"CD3D": 0.5, "ENSG00000167286": 0.5})], "auto")


def test_other_names_of_a_gene(reader: GeneMapReader) -> None:
    (plain,), _ = reader.read([gene_map({"CD3D": 3.0, "LTB": 1.0})], "counts")
    for name in ("ENSG00000167286", "ENSG00000167286.11", "CD3D_ENSG00000167286", "Cd3d"):
        (other,), genes = reader.read([gene_map({name: 3.0, "LTB": 1.0})], "counts")
        assert fed(other) == fed(plain), name
        assert genes.unknown == 0


def test_two_weak_claims_to_one_gene_both_stay_out(demo: Model, reader: GeneMapReader) -> None:
    row = {"Cd3d": 3.0, "cD3d": 5.0, "LTB": 1.0}
    (found,), genes = reader.read([gene_map(row)], "counts")
    (expected,) = from_file(demo, list(row), [list(row.values())], ["c1"], but=("CD3D",))
    assert fed(found) == fed(expected)
    assert (genes.known, genes.unknown) == (1, 2)
    (alone,), _ = reader.read([gene_map({"Cd3d": 3.0, "LTB": 1.0})], "counts")  # is not remembered as ambiguous
    assert fed(alone)["CD3D"] > 0


def test_two_names_of_one_gene_add_up_in_counts(demo: Model, reader: GeneMapReader) -> None:
    row = {"CD3D": 3.0, "LTB": 4.0, "ENSG00000167286": 1.0, "CD8A": 2.0}
    (found,), _ = reader.read([gene_map(row)], "counts")
    (expected,) = from_file(demo, list(row), [list(row.values())], ["c1"])
    assert fed(found) == fed(expected)
    with pytest.raises(RequestError, match="logarithms cannot be added up") as refused:
        reader.read([gene_map(row)], "lognorm")
    assert (refused.value.status, refused.value.param) == (422, "cells[0]")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1e300])
def test_impossible_values_are_refused_by_name(reader: GeneMapReader, value: float) -> None:
    with pytest.raises(RequestError) as refused:
        reader.read([gene_map({"LTB": 1.0}, "good"), gene_map({"LTB": 2.0, "CD3D": value}, "bad")], "auto")
    assert refused.value.status == 422
    if value != 1e300:
        assert "'CD3D' of cell 'bad'" in refused.value.message
        assert refused.value.param == "cells[1]"


def test_values_that_are_neither(reader: GeneMapReader) -> None:
    with pytest.raises(RequestError, match=r"reach 21\.5 and are no whole numbers") as refused:
        reader.read([gene_map({"LTB": 21.5})], "auto")
    assert refused.value.param == "values"
    with pytest.raises(RequestError, match="reach 50") as refused:
        reader.read([gene_map({"LTB": 50.0})], "lognorm")
    reader.read([gene_map({"LTB": 21.5})], "counts")


@pytest.mark.parametrize("kind", ["auto", "counts", "lognorm"])
@pytest.mark.parametrize("row", [{}, {"LTB": 0.0, "CD3D": 0.0}])
def test_a_cell_without_counts_fails_alone(reader: GeneMapReader, row: dict[str, float], kind: Any) -> None:
    found, _ = reader.read([gene_map(row, "empty"), gene_map({"LTB": 2.0}, "good")], kind)
    assert [bool(one.failure) for one in found] == [True, False]
    (alone,), _ = reader.read([gene_map(row, "empty")], kind)
    assert alone.failure == found[0].failure
    assert alone.failure == "it has no counts"


def test_special_tokens_are_no_genes(reader: GeneMapReader) -> None:
    (found,), genes = reader.read([gene_map({"<cls>": 90.0, "<pad>": 1.0, "LTB": 1.0})], "counts")
    assert (genes.known, genes.unknown) == (1, 2)
    (expected,), _ = reader.read([gene_map({"NOT-A-GENE": 91.0, "LTB": 1.0})], "counts")
    assert fed(found) == fed(expected)
    with pytest.raises(RequestError, match="none of the 1 names is a gene"):
        reader.read([gene_map({"<cls>": 1.0})], "counts")


def test_names_of_which_none_is_a_gene(reader: GeneMapReader) -> None:
    with pytest.raises(RequestError, match=r"none of the 2 names .* \(unknown: ä , ☃\)") as refused:
        reader.read([gene_map({"ä\n": 1.0, "☃": 1.0})], "auto")
    assert refused.value.status == 422


def test_names_are_remembered_within_bounds(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellscribe.engine.service.gene_maps._MOST_NAMES", 10)
    reader = GeneMapReader(demo.bundle)
    for i in range(5):
        reader.read([gene_map({"LTB": 1.0} | {f"N{i}-{k}": 1.0 for k in range(8)})], "counts")
    assert len(reader._columns) < 30


def test_many_genes_are_quick(reader: GeneMapReader) -> None:
    row = {"LTB": 1.0} | {f"gene-{i}": 1.0 for i in range(69_999)}
    began = time.monotonic()
    _, genes = reader.read([gene_map(row)], "counts")
    assert (genes.known, genes.unknown) == (1, 69_999)
    assert time.monotonic() - began < 5


def test_too_many_genes_are_refused() -> None:
    body = Cells.model_validate({"cells": [{"genes": {f"gene-{i}": 1 for i in range(70_001)}}]})
    with pytest.raises(RequestError, match=r"cells\[0\] has 70001 genes, more than 70000") as refused:
        gene_maps(body, 70_000)
    assert refused.value.status == 413


def test_sparse_arrays_are_the_same_cell() -> None:
    body = Cells.model_validate(
        {"cells": [{"id": "a", "indices": [2, 0], "values": [4, 1]}, {"genes": {"A": 1.5}}],
         "gene_names": ["A", "B", "C"]}
    )  # fmt: skip
    sparse, dense = gene_maps(body, 10)
    assert (list(sparse.names), sparse.values.tolist(), sparse.cell_id) == (["C", "A"], [4.0, 1.0], "a")
    assert (list(dense.names), dense.values.tolist(), dense.cell_id) == (["A"], [1.5], "cell-1")


@pytest.mark.parametrize(
    ("cells", "words", "param"),
    [
        ([{"indices": [3], "values": [1]}], "points at gene 3, and gene_names has 3", "cells[0].indices"),
        ([{"indices": [10**30], "values": [1]}], "points at gene 1000", "cells[0].indices"),
        (
            [{"id": "x", "genes": {}}, {"id": "x", "indices": [], "values": []}],
            "two cells are named 'x'",
            "cells[1].id",
        ),
        ([{"genes": {}}, {"id": "cell-0", "indices": [], "values": []}], "two cells are named 'cell-0'", "cells[1].id"),
    ],
)
def test_cells_that_contradict_themselves(cells: list[Any], words: str, param: str) -> None:
    with pytest.raises(RequestError) as refused:
        gene_maps(Cells.model_validate({"cells": cells, "gene_names": ["A", "B", "C"]}), 10)
    assert (refused.value.status, refused.value.param) == (422, param)
    assert words in refused.value.message


def test_a_name_that_stands_twice_among_the_names_is_refused() -> None:
    body = {"cells": [{"indices": [0], "values": [1]}], "gene_names": ["A", "B", "A"]}
    with pytest.raises(RequestError, match="gene_names has 'A' twice") as refused:
        gene_maps(Cells.model_validate(body), 10)
    assert (refused.value.status, refused.value.param) == (422, "gene_names")


def test_every_refusal_is_one_line(reader: GeneMapReader) -> None:
    for row in ({"a\nb": 1.0}, {"LTB": 1.5, "\u2028x": 30.5}, {"LTB\r": float("nan")}):
        with pytest.raises((RequestError, CellscribeError)) as refused:
            reader.read([gene_map(row)], "auto")
        assert str(refused.value).isprintable()
        assert str(refused.value).endswith(".")
