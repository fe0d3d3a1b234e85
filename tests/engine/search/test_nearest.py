from __future__ import annotations

import numpy as np
import pytest

from cellscribe.engine.errors import BackendError, InputError
from cellscribe.engine.search import nearest as module
from cellscribe.engine.search.approximate import build_approximate, open_approximate
from cellscribe.engine.search.nearest import nearest
from cellscribe.engine.search.recall import recall_at


def _unit(rows: int, width: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("block", [7, 64, 1000])
@pytest.mark.parametrize("k", [1, 5, 300])
def test_the_nearest_are_those_of_sorting_all(monkeypatch: pytest.MonkeyPatch, block: int, k: int) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    vectors, queries = _unit(200, 8), _unit(3, 8, seed=1)
    vectors[50:60] = vectors[40:50]  # equal products: the first place wins
    places, scores = nearest(vectors, queries, k)
    products = (queries.astype(np.float64) @ vectors.astype(np.float64).T).round(6)
    order = np.argsort(-products, axis=1, kind="stable")[:, :k]
    assert places.shape == (3, min(k, 200))
    np.testing.assert_allclose(scores, np.take_along_axis(products, order, 1), atol=2e-6)
    for row in range(3):
        doubles = {int(place): i for i, place in enumerate(places[row])}
        for first in range(40, 50):
            if first + 10 in doubles:
                assert doubles[first] < doubles[first + 10]


def test_recall_in_both_directions() -> None:
    texts = np.eye(3, dtype=np.float32)
    cells = np.array([[1, 0, 0], [0.6, 0.8, 0], [0, 0, 1], [0, 1, 0]], np.float32)
    truth = ["B cell", "b  Cell", "", "monocyte"]
    found = recall_at(cells, texts, truth, ["B cell", "T cell", "monocyte"], ks=(1, 2, 3))
    assert (found.num_texts, found.num_cells) == (2, 3)
    # B cell finds cell 0 first; monocyte (third axis) finds cell 2 first, then the others level, cell 0 before
    assert found.cells_by_text == {1: 0.5, 2: 0.5, 3: 0.5}
    # cell 0 finds its text first, cell 1 second, cell 3 (second axis) finds T cell first, then B cell before monocyte
    assert found.texts_by_cell == pytest.approx({1: 1 / 3, 2: 2 / 3, 3: 1.0})


def test_labels_without_a_text_are_one_sentence() -> None:
    with pytest.raises(InputError, match="no known label of the cells is among the 1 texts"):
        recall_at(_unit(4, 3), _unit(1, 3), ["x"] * 4, ["B cell"])


def test_faiss_finds_what_its_measured_recall_says(tmp_path: pytest.TempPathFactory) -> None:
    pytest.importorskip("faiss", reason="the search extra is not installed")
    centres = _unit(20, 16, seed=2)
    vectors = np.repeat(centres, 200, axis=0) + 0.1 * _unit(4000, 16, seed=3)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    path = tmp_path / "nearest.faiss"  # type: ignore[operator]
    made = build_approximate(vectors.astype(np.float32), path)
    assert made.recall_at_10 >= 0.99
    assert 1 <= made.probes <= made.lists
    index = open_approximate(path, made.probes)
    queries = vectors[::97].astype(np.float32)
    found = index.search(queries, 10)[1]
    truth = nearest(vectors.astype(np.float32), queries, 10)[0]
    shared = np.mean([len(set(row) & set(other)) / 10 for row, other in zip(found, truth, strict=True)])
    assert shared >= 0.97
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="is missing or damaged"):
        open_approximate(path, 1)


@pytest.mark.parametrize("num", [1, 8, 100])
def test_few_vectors_are_searched_by_faiss_too(tmp_path: pytest.TempPathFactory, num: int) -> None:
    pytest.importorskip("faiss", reason="the search extra is not installed")
    vectors, path = _unit(num, 4), tmp_path / "nearest.faiss"  # type: ignore[operator]
    made = build_approximate(vectors, path)
    assert (made.lists, made.recall_at_10) == (1, 1.0)
    assert open_approximate(path, 1).search(vectors, 1)[1].ravel().tolist() == list(range(num))


def test_missing_faiss_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: pytest.TempPathFactory) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(BackendError, match=r"install it with: pip install 'cellscribe\[search\]'"):
        build_approximate(_unit(100, 4), tmp_path / "x")  # type: ignore[operator]
