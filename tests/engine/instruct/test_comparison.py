"""Generated cells against real ones, on halves of real cells, spoilt ones, and cells made by hand."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from made_cells import made

from cellscribe.engine.errors import InputError
from cellscribe.engine.instruct.compare_settings import CompareSettings
from cellscribe.engine.instruct.comparison import Comparison, compare_cells
from cellscribe.engine.instruct.components import components, published_components
from cellscribe.engine.instruct.discrepancy import gammas_of

NO_MAP = CompareSettings(has_map=False)


@pytest.fixture(scope="module")
def blood(shared: Path) -> ad.AnnData:
    """165 cells of 11 types, their 2,000 strongest genes."""
    cells = ad.read_h5ad(shared / "data" / "zheng68k.h5ad")
    strongest = np.argsort(-cells.X.sum(axis=0).A1, kind="stable")[:2000]
    return cells[:, np.sort(strongest)].copy()


def _halves(cells: ad.AnnData) -> tuple[ad.AnnData, ad.AnnData]:
    """Two sets of cells, every type in both."""
    order = np.argsort(cells.obs["celltype"].astype(str).to_numpy(), kind="stable")
    return cells[order[::2]].copy(), cells[order[1::2]].copy()


def _compared(generated: ad.AnnData, real: ad.AnnData, settings: CompareSettings = NO_MAP) -> Comparison:
    return compare_cells(generated, real, label="celltype", settings=settings)


def test_halves_of_real_cells_are_alike_and_shuffled_ones_are_not(blood: ad.AnnData) -> None:
    first, second = _halves(blood)
    alike = _compared(first, second).components
    assert alike.neighbours == (5, 10, 25, 50)
    assert np.abs(alike.mixing.whole - 1).max() < 0.2  # a little above 1: each half has as many cells of each type
    assert np.abs(alike.mixing_real.whole - 1).max() < 0.2
    assert alike.mmd.mmd == pytest.approx(alike.mmd.chance, rel=0.15)
    assert np.abs(alike.sknn.whole - alike.sknn_real.whole).max() < 0.12
    assert np.abs(alike.pknn.whole - alike.pknn_real.whole)[:2].max() < 0.1  # with 7 or 8 cells of a type

    draws = np.random.default_rng(1)
    garbage = first.copy()
    garbage.X = sp.csr_matrix(np.stack([draws.permutation(row) for row in first.X.toarray()]))
    bad = _compared(garbage, second).components
    assert bad.mixing.whole[:2].max() < 0.3
    assert bad.mmd.mmd > 1.5 * bad.mmd.chance
    assert bad.pknn.whole[0] < alike.pknn.whole[0] - 0.2
    assert bad.sknn.whole[0] < alike.sknn.whole[0] - 0.2

    renamed = first.copy()
    renamed.obs["celltype"] = draws.permutation(first.obs["celltype"].astype(str))
    strange = _compared(renamed, second).components
    assert strange.pknn.whole[0] < 0.3 < alike.pknn.whole[0]
    assert strange.mmd == alike.mmd  # which looks at no types


def test_types_are_told_apart(blood: ad.AnnData) -> None:
    first, second = _halves(blood)
    spoilt = first[first.obs["celltype"] != first.obs["celltype"].cat.categories[0]].copy()
    found = _compared(spoilt, second)
    lost = found.types.index(str(first.obs["celltype"].cat.categories[0]))
    assert found.num_generated[lost] == 0
    assert found.components.mmd_by_type[lost] is None
    assert np.isnan(found.components.pknn.by_type[:, lost]).all()
    assert found.components.mixing_real.by_type[0, lost] < 0.9 * found.components.mixing_real.whole[0]
    weights = found.num_generated / found.num_generated.sum()
    np.testing.assert_allclose(
        np.nansum(found.components.sknn.by_type * weights, axis=1), found.components.sknn.whole, rtol=1e-9
    )
    told = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert told["components"]["pknn"]["5"]["by_type"][found.types[lost]] is None
    assert told["types"][found.types[lost]] == {"generated": 0, "real": 8}


def test_the_order_of_cells_and_genes_plays_no_part(blood: ad.AnnData) -> None:
    first, second = _halves(blood)
    draws = np.random.default_rng(2)
    settings = replace(NO_MAP, max_cells=60)
    found = _compared(first, second, settings).as_dict()
    turned = [one[draws.permutation(one.n_obs)][:, draws.permutation(one.n_vars)].copy() for one in (first, second)]
    again = _compared(turned[0], turned[1], settings).as_dict()
    for one in (found, again):
        for side in ("generated", "real"):
            del one[side]["notes"], one[side]["source"]
    assert again == found
    assert found["generated"]["num_compared"] == 60


def test_published_components_are_those_of_truncated_svd(blood: ad.AnnData) -> None:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.metrics import pairwise_distances

    first, second = _halves(blood)
    found = _compared(first, second)
    values = found.generated.values, found.real.values
    model = TruncatedSVD(n_components=12, algorithm="arpack", random_state=0).fit(values[1].astype(np.float64))
    for places, one in zip(published_components(*values, 12), values, strict=True):
        wanted = pairwise_distances(model.transform(one))
        np.testing.assert_allclose(pairwise_distances(places), wanted, rtol=1e-4, atol=1e-3)


class Flat:
    """Stands in for UMAP: the first two components, scaled by how many points it was fitted to."""

    def __init__(self, n_neighbors: int, random_state: int, n_jobs: int) -> None:
        self.n_neighbors, self.seed = n_neighbors, random_state

    def fit(self, points: np.ndarray) -> Self:
        self.scale = 1.0 / len(points)
        self.embedding_ = self.transform(points)
        return self

    def transform(self, points: np.ndarray) -> np.ndarray:
        return (points[:, :2] * self.scale).astype(np.float32)


def test_maps_are_of_both_sets_and_as_published(blood: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Flat))
    first, second = _halves(blood)
    settings = CompareSettings(neighbours=(5, 10))
    found = _compared(first, second, settings)
    assert found.map is not None
    assert found.published is not None
    assert found.places is not None
    low = components(found.generated.values, found.real.values)
    for places, wanted in zip(found.places, low, strict=True):
        np.testing.assert_allclose(places, wanted[:, :2] / first.n_obs / 2, rtol=0.05)
    _, real = published_components(found.generated.values, found.real.values)
    assert found.published.gammas == pytest.approx(gammas_of((real[:, :2] / second.n_obs).astype(np.float32)), rel=1e-3)
    told = found.as_dict()
    assert set(told["generated"]["places"]) == set(first.obs_names)
    assert "mixing" in told["map"]
    assert "mixing" not in told["published"]
    fewer = _compared(first[:40].copy(), second, settings)
    assert fewer.published is not None
    assert fewer.published.sknn_real.whole.tolist() == found.published.sknn_real.whole.tolist()  # of real cells alone


@pytest.mark.slow
def test_real_maps_mix_halves_and_do_not_depend_on_order(blood: ad.AnnData) -> None:
    pytest.importorskip("umap", reason="the compare extra is not installed")
    first, second = _halves(blood)
    settings = CompareSettings(neighbours=(5, 10, 25))
    found, turned = _compared(first, second, settings), _compared(first[::-1].copy(), second[::-1].copy(), settings)
    assert found.map is not None
    assert found.published is not None
    assert np.abs(found.map.mixing.whole - 1).max() < 0.2
    assert found.map.mmd.mmd < 2 * found.map.mmd.chance
    assert found.published.pknn.whole[0] > 0.2
    for one, other in zip(found.places or (), turned.places or (), strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.published.as_dict(found.types) == turned.published.as_dict(turned.types)  # type: ignore[union-attr]


def test_without_umap_the_map_is_left_out_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    found = compare_cells(made(), made(1))
    assert found.map is None
    assert found.places is None
    assert any("pip install 'cellscribe[compare]'" in note for note in found.notes)


@pytest.mark.parametrize("base", [np.e, 10.0, 2.0])
def test_logarithms_are_taken_back(base: float) -> None:
    real, logged = made(1), made()
    counts = logged.X.toarray()
    logged.X = np.log1p(1e4 * counts / counts.sum(1, keepdims=True)).astype(np.float32) / np.float32(np.log(base))
    found, wanted = compare_cells(logged, real, settings=NO_MAP), compare_cells(made(), real, settings=NO_MAP)
    np.testing.assert_allclose(found.generated.values.toarray(), wanted.generated.values.toarray(), rtol=2e-4)
    assert f"base {base:.4g}" in found.generated.notes[-1]


def test_values_are_normalised_over_shared_genes_and_doubles_are_added() -> None:
    generated, real = made(), made(1)
    real = real[:, ::-1][:, :70].copy()  # without G0 to G9
    generated.var_names = [*generated.var_names[:79], "G78"]  # not G79, and G78 twice
    generated.var["gene_symbol"] = generated.var_names
    generated.var_names = [f"row{i}" for i in range(80)]
    found = compare_cells(generated, real, settings=NO_MAP)
    assert found.genes == tuple(sorted(f"G{i}" for i in range(10, 79)))
    counts = made().X.toarray()
    counts[:, 78] += counts[:, 79]
    wanted = pd.DataFrame(counts[:, :79], index=generated.obs_names, columns=[f"G{i}" for i in range(79)])
    wanted = wanted.loc[list(found.generated.cell_ids), list(found.genes)]
    wanted = np.log1p(wanted.div(wanted.sum(axis=1), axis=0) * 1e4)
    np.testing.assert_allclose(found.generated.values.toarray(), wanted.to_numpy(), rtol=1e-5)


def test_marker_genes_are_those_of_the_real_cells() -> None:
    found = compare_cells(made(), made(1), settings=NO_MAP).dots
    assert found.types == ("A", "B")
    assert dict(found.groups) == {"A": 10, "B": 10}
    assert all(int(gene[1:]) < 20 for gene in found.genes[:10])
    assert found.share.shape == found.mean_generated.shape == (2, 20)
    assert (found.mean_generated[0, :10] > found.mean_generated[1, :10]).all()
    given = compare_cells(made(), made(1), settings=NO_MAP, markers={"mine": ["g3", "nowhere"]}).dots
    assert given.genes == ("G3",)
    assert given.groups == (("mine", 1),)
    with pytest.raises(InputError, match=r"none of the genes in mine\.json"):
        compare_cells(made(), made(1), settings=NO_MAP, markers={"A": ["no"]}, markers_from="mine.json")


def test_what_is_odd_is_said() -> None:
    generated, real = made(), made(1)
    generated.obs["cell_type"] = ["A"] * 20 + ["C"] * 2 + [None] * 2
    generated.X = sp.csr_matrix(generated.X.toarray() * (np.arange(24) > 0)[:, None])
    real.obs["cell_type"] = "A"
    found = compare_cells(generated, real, settings=NO_MAP)
    said = " ".join(found.notes)
    for words in (
        "left out: 2 cells",
        "genes: 1 cell of",
        "no real cell has (C)",
        "pKNN is 1",
        "few cells for 25, 50 neighbours",
    ):
        assert words in said
    assert found.generated.num_cells == 22
    assert (found.components.pknn.whole == 1).all()


def test_other_types_elect_and_have_markers_but_do_not_mix() -> None:
    generated, real = made(), made(1)
    asked, settings = generated[generated.obs["cell_type"] == "A"].copy(), replace(NO_MAP, same_types=True)
    found = compare_cells(asked, real, settings=settings)
    assert found.num_real.tolist() == [12, 12]
    assert found.components.pknn.whole[0] == 1.0
    assert all(int(gene[1:]) < 20 for gene in found.dots.genes)  # what tells A from B
    assert any("12 cells of" in note and "not for mixing" in note for note in found.notes)
    alone = compare_cells(asked, real[real.obs["cell_type"] == "A"].copy(), settings=settings)
    assert found.components.mixing.whole[0] == pytest.approx(alone.components.mixing.whole[0], abs=0.35)
    wrong = generated[generated.obs["cell_type"] == "B"].copy()
    wrong.obs["cell_type"] = "A"
    wrong = compare_cells(wrong, real, settings=settings)
    assert wrong.components.pknn.whole[0] == 0.0
    assert wrong.components.mixing.whole[0] < 0.2
    assert wrong.components.mmd.mmd > 1.5 * found.components.mmd.mmd
    with pytest.raises(InputError, match=r"3 of the cells of .* have a type that cells of .* have and 6 are needed"):
        compare_cells(asked, real[[0, 2, 4, *range(1, 24, 2)]].copy(), settings=settings)


def test_a_quarter_of_the_drawn_are_of_the_types_asked_for() -> None:
    asked, real = made()[::2].copy(), made(1, num_cells=80)
    real.obs["cell_type"] = ["A" if i < 12 else f"other {i % 2}" for i in range(80)]
    settings = replace(NO_MAP, same_types=True, max_cells=24)
    assert compare_cells(asked, real, settings=settings).num_real.tolist()[0] >= 6
