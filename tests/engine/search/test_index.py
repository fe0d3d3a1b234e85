"""Indexes of cells: made in blocks, stopped, gone on with, opened, searched."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from cellscribe.engine.cells import CellSource, open_cells
from cellscribe.engine.errors import BackendError, InputError, OutputError, UsageError
from cellscribe.engine.output.run import Run
from cellscribe.engine.search import open_index
from cellscribe.engine.search.build import Built, build_index
from cellscribe.engine.search.find import cells_by_vector, cells_like, texts_by_cell

BUNDLE: Any = SimpleNamespace(
    name="tiny", hash="ab" * 32, folder=Path("tiny"), manifest=SimpleNamespace(family="langcell")
)


class Embed:
    """Gives every cell its counts as a vector; the third cell is lost, and a call may fail."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.asked: list[int] = []
        self.fails_at = fails_at

    def __call__(self, source: CellSource, *, rows: np.ndarray, progress: Any) -> Run:
        if self.fails_at in rows.tolist():
            raise KeyboardInterrupt
        self.asked += rows.tolist()
        vectors = np.concatenate([block.matrix.toarray() for block in source.blocks(rows)]).astype(np.float32)
        vectors[rows == 2] = np.nan
        why = {int(np.flatnonzero(rows == 2)[0]): "no genes"} if 2 in rows else {}
        names = tuple(str(source.obs_names[row]) for row in rows)
        return Run(rows, embeddings=vectors, cell_ids=names, why_lost=why, settings={"values": "counts"})


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    counts = np.random.default_rng(0).poisson(2.0, (11, 5)).astype(np.float32)
    counts[:, 0] += 1
    obs = pd.DataFrame({"kind": list("aabbbccccdd")}, index=[f"c{i}" for i in range(11)])
    ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=list("VWXYZ"))).write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def _build(cells: Path, embed: Embed | None = None, **options: Any) -> Built:
    with open_cells(cells) as source:
        return build_index(embed or Embed(), BUNDLE, source, cells.with_name("index"), block_cells=4, **options)


def test_an_index_keeps_vectors_names_and_columns(cells: Path) -> None:
    built = _build(cells, columns=("kind",))
    assert built.why_lost == {"c2": "no genes"}
    index = open_index(cells.with_name("index"))
    assert index.cells["cell_id"].tolist() == [f"c{i}" for i in range(11) if i != 2]
    assert index.cells["row"].tolist() == [i for i in range(11) if i != 2]
    assert index.column("kind").tolist() == list("aabbccccdd")
    counts = ad.read_h5ad(cells).X[[i for i in range(11) if i != 2]]
    np.testing.assert_allclose(index.vectors, counts / np.linalg.norm(counts, axis=1, keepdims=True), rtol=1e-6)
    assert index.is_exact
    assert index.manifest["settings"] == {"values": "counts"}
    assert not list(cells.parent.glob(".index*"))


def test_a_stopped_index_goes_on_and_does_nothing_twice(cells: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _build(cells, Embed(fails_at=9))
    assert not cells.with_name("index").exists()
    rest = Embed()
    built = _build(cells, rest)
    assert rest.asked == [8, 9, 10]
    assert built.why_lost == {"c2": "no genes"}
    whole = np.array(built.index.vectors)
    cells.with_name("index").rename(cells.with_name("first"))
    np.testing.assert_array_equal(_build(cells).index.vectors, whole)


def test_a_stopped_index_of_other_cells_is_left_alone(cells: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _build(cells, Embed(fails_at=9))
    with pytest.raises(OutputError, match="holds a stopped index of other cells"):
        _build(cells, rows=np.arange(5))


def test_as_many_other_cells_do_not_go_on_with_a_stopped_index(cells: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _build(cells, Embed(fails_at=9), rows=np.arange(3, 11))
    with pytest.raises(OutputError, match="holds a stopped index of other cells"):
        _build(cells, rows=np.arange(8))


@pytest.mark.parametrize("name", ["cell_id", "row", "query", "rank", "score"])
def test_columns_do_not_take_the_place_of_what_is_found(cells: Path, name: str) -> None:
    given = ad.read_h5ad(cells)
    given.obs[name] = "other"
    given.write_h5ad(cells)
    embed = Embed()
    with pytest.raises(UsageError, match=f"the column '{name}' cannot be kept"):
        _build(cells, embed, columns=("kind", name))
    assert not embed.asked


def test_columns_of_several_types_are_kept_as_texts(cells: Path) -> None:
    given = ad.read_h5ad(cells)
    given.obs["mixed"] = np.array([1, "a", None, 2.5, *"abcdefg"], dtype=object)
    given.obs["number"] = np.arange(11)
    with open_cells(given) as source:
        index = build_index(Embed(), BUNDLE, source, cells.with_name("index"), columns=("mixed", "number")).index
    assert index.column("mixed").tolist() == ["1", "a", "2.5", *"abcdefg"]  # the third cell is lost
    assert index.column("number").tolist() == [i for i in range(11) if i != 2]


def test_cells_texts_and_neighbours_are_found(cells: Path) -> None:
    index = _build(cells, columns=("kind",)).index
    queries = np.array(index.vectors[[3, 7]]) * 5
    found = cells_by_vector(index, ["one", "two"], queries, 3)
    assert found.columns.tolist() == ["query", "rank", "cell_id", "score", "kind"]
    assert found["cell_id"].tolist()[::3] == ["c4", "c8"]
    assert found["rank"].tolist() == [1, 2, 3] * 2
    np.testing.assert_allclose(found["score"][::3], 1.0, rtol=1e-5)
    like = cells_like(index, ["c4", "c8"], 3)
    assert like["cell_id"].tolist()[:2] == found["cell_id"].tolist()[1:3]
    assert "c4" not in like["cell_id"][like["query"] == "c4"].tolist()
    assert len(cells_like(index, ["c4"], 50)) == 9
    texts = texts_by_cell(index, ["c8"], ["one", "two"], queries, 5)
    assert texts["text"].tolist() == ["two", "one"]


def test_faiss_gives_the_same_table(cells: Path) -> None:
    pytest.importorskip("faiss", reason="the search extra is not installed")
    exact = _build(cells).index
    cells.with_name("index").rename(cells.with_name("exact"))
    wide = np.random.default_rng(1).normal(size=(700, 5)).astype(np.float32)
    big = ad.AnnData(np.abs(wide) + 0.1, var=pd.DataFrame(index=list("VWXYZ")))
    big.write_h5ad(cells)
    index = _build(cells, kind="approximate").index
    assert not index.is_exact
    query = np.array(exact.vectors[:1])
    near, sure = cells_by_vector(index, ["q"], query, 5), cells_by_vector(index, ["q"], query, 5, exact=True)
    assert near["cell_id"].tolist()[0] == sure["cell_id"].tolist()[0]
    np.testing.assert_allclose(near["score"][0], sure["score"][0], rtol=1e-5)


def test_missing_faiss_is_found_before_any_cell_is_embedded(cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    embed = Embed()
    with pytest.raises(BackendError, match="install it with"):
        _build(cells, embed, kind="approximate")
    assert not embed.asked


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "index.json").unlink(), "is no index of cells"),
        (lambda folder: (folder / "index.json").write_text('{"schema": 99}'), "of another Cellscribe"),
        (lambda folder: (folder / "index.json").write_text('{"schema": 1}'), "index.json has no bundle"),
        (lambda folder: (folder / "vectors.npy").write_bytes(b"x"), "is damaged"),
        (lambda folder: (folder / "vectors.npy").write_bytes(b""), "is damaged"),
        (lambda folder: (folder / "cells.parquet").write_bytes(b"x"), "is damaged"),
        (lambda folder: np.save(folder / "vectors.npy", np.ones((10, 5), np.float64)), "its files disagree"),
        (lambda folder: np.save(folder / "vectors.npy", np.ones((2, 5), np.float32)), "its files disagree"),
    ],
)
def test_damaged_indexes_are_one_sentence(cells: Path, damage: Any, said: str) -> None:
    _build(cells)
    damage(cells.with_name("index"))
    with pytest.raises(InputError, match=said):
        open_index(cells.with_name("index"))


def test_wrong_wishes_are_one_sentence(cells: Path) -> None:
    index = _build(cells).index
    with pytest.raises(OutputError, match="exists already"):
        _build(cells)
    with pytest.raises(UsageError, match="choose one of auto, exact, approximate"), open_cells(cells) as source:
        build_index(Embed(), BUNDLE, source, cells.with_name("other"), kind="foo")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="vectors of 5"):
        index.nearest(np.ones((1, 4), np.float32))
    with pytest.raises(UsageError, match="ask for 1 at least"):
        index.nearest(np.ones((1, 5), np.float32), 0)
    with pytest.raises(InputError, match="has no cell 'nobody'"):
        index.places_of(["nobody"])
    with pytest.raises(InputError, match=r"keeps no column 'kind' \(it has none\)"):
        index.column("kind")
    assert json.loads((index.folder / "index.json").read_text())["num_lost"] == 1


def test_cells_that_all_fail_make_no_index(cells: Path) -> None:
    with pytest.raises(InputError, match=r"none of the cells of .* could be embedded \(no genes\)"):
        _build(cells, rows=np.array([2]))
    assert not cells.with_name("index").exists()
