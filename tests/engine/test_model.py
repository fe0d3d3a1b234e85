"""The model over real cells, with a tiny bundle of random weights: what must hold whatever the weights are."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import cellscribe as cs
from cellscribe.engine.cells import open_cells
from cellscribe.engine.errors import BundleError, InputError, UsageError
from cellscribe.engine.packaged import packaged_cells

SAMPLED = cs.Sampling(top_p=0.9, temperature=0.7, seed=3)
TOKENS = 32


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> cs.Model:
    return cs.load(tiny_bundle, threads=2)


@pytest.fixture
def cells() -> ad.AnnData:
    return ad.read_h5ad(packaged_cells())[:10].copy()


@pytest.mark.parametrize("sampling", [cs.Sampling(), SAMPLED])
def test_a_cell_has_one_text_whatever_the_batch_the_order_and_the_other_genes(
    model: cs.Model, cells: ad.AnnData, sampling: cs.Sampling
) -> None:
    expected = model.describe(cells, sampling=sampling, max_new_tokens=TOKENS, batch_size=1, copy=True)
    assert expected["description"].nunique() > 3
    order = np.random.default_rng(0).permutation(10)
    shuffled = cells[order, np.random.default_rng(1).permutation(cells.n_vars)].copy()
    for batch_size, given in ((3, cells), (32, shuffled), (4, cells[[7, 2]].copy())):
        found = model.describe(given, sampling=sampling, max_new_tokens=TOKENS, batch_size=batch_size, copy=True)
        same = expected.loc[found.index]
        assert found["description"].tolist() == same["description"].tolist()
        assert found["mean_logprob"].tolist() == same["mean_logprob"].tolist()
        assert found["top_genes"].tolist() == same["top_genes"].tolist()


def test_counts_and_log_normalised_values_of_a_cell_give_the_same_text(model: cs.Model, shared: Path) -> None:
    counts = ad.read_h5ad(shared / "data/zheng68k.h5ad")[:4].copy()
    logged = counts.copy()
    scale = 1e4 / np.asarray(counts.X.sum(1))
    logged.X = sp.csr_matrix(counts.X.multiply(scale)).log1p().astype(np.float32)
    texts = [model.describe(c, max_new_tokens=TOKENS, copy=True)["description"].tolist() for c in (counts, logged)]
    assert texts[0] == texts[1]


def test_a_stream_is_the_text_it_becomes(model: cs.Model, cells: ad.AnnData) -> None:
    whole = model.describe(cells[:1].copy(), sampling=SAMPLED, max_new_tokens=TOKENS, copy=True).iloc[0]
    pieces = list(model.stream(cells[0], sampling=SAMPLED, max_new_tokens=TOKENS))
    assert "".join(p.text for p in pieces).strip() == whole["description"]
    assert len(pieces) == whole["num_tokens"]
    assert np.mean([p.logprob for p in pieces]) == pytest.approx(whole["mean_logprob"])
    assert all(abs(sum(p.top_genes.weights)) <= 1 + 1e-6 and p.top_genes.symbols for p in pieces)
    assert pieces[-1].running_genes.symbols == tuple(whole["top_genes"])
    with pytest.raises(InputError, match="takes one cell and got 10"):
        next(model.stream(cells))


def test_results_land_in_the_object_and_point_at_its_genes(model: cs.Model, cells: ad.AnnData) -> None:
    frame = model.describe(cells, max_new_tokens=TOKENS, top_genes=5)
    assert cells.obs["cellscribe_description"].tolist() == frame["description"].tolist()
    columns = cells.obsm["cellscribe_top_genes"]
    assert columns.shape == (10, 5)
    for row, genes in zip(columns, frame["top_genes"], strict=True):
        assert cells.var_names[row].tolist() == list(genes)
    weights = cells.obsm["cellscribe_top_gene_weights"]
    assert (np.diff(weights, axis=1) <= 0).all()
    settings = cells.uns["cellscribe"]
    assert settings["bundle_hash"] == model.bundle.hash
    assert "raw" not in settings["values"] or settings["values"]


def test_embeddings_have_length_one_and_do_not_depend_on_the_batch(model: cs.Model, cells: ad.AnnData) -> None:
    vectors = model.embed(cells)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5
    assert (cells.obsm["X_cellscribe"] == vectors).all()
    again = model.embed(cells[[8, 1]].copy(), copy=True)
    assert (again == vectors[[8, 1]]).all()


def test_a_pool_is_the_normalised_mean_of_its_cells(model: cs.Model, cells: ad.AnnData) -> None:
    cells.obs["cluster"] = ["a", "b"] * 4 + ["b", None]
    vectors = model.embed(cells, copy=True)
    with open_cells(cells) as source:
        run = model.describe_cells(source, pool="cluster", max_new_tokens=TOKENS)
    assert run.names == ("a", "b")
    mean = vectors[[0, 2, 4, 6]].mean(0)
    assert run.embeddings is not None
    assert np.abs(run.embeddings[0] - mean / np.linalg.norm(mean)).max() < 1e-6
    assert run.pool_of is not None
    assert run.pool_of.tolist() == [0, 1] * 4 + [1, -1]
    assert all(one.is_ok and one.text for one in run.descriptions)
    with open_cells(cells) as source, pytest.raises(InputError, match="clustr"):
        model.describe_cells(source, pool="clustr")


def test_a_cell_without_counts_fails_alone(model: cs.Model, cells: ad.AnnData) -> None:
    cells.X[3] = 0
    frame = model.describe(cells, max_new_tokens=TOKENS)
    assert frame["status"].str.startswith("failed: ").tolist() == [i == 3 for i in range(10)]
    assert cells.obs["cellscribe_status"].iloc[3].startswith("failed: it has no counts")
    assert frame["description"].iloc[3] == ""


def test_all_attention_sums_to_one_per_token_and_to_the_evidence(model: cs.Model, cells: ad.AnnData) -> None:
    with open_cells(cells) as source:
        run = model.describe_cells(source, rows=np.array([2, 5]), max_new_tokens=TOKENS, attention=True, top_genes=60)
    cross = model.bundle.manifest.cross_attention
    assert cross is not None
    for record, one in zip(run.attention, run.descriptions, strict=True):
        assert record.weights.shape == (cross.n_layers, cross.n_heads, one.num_tokens, 61)
        assert record.weights.dtype == np.float16
        weights = record.weights.astype(np.float32)
        assert np.abs(weights.sum(-1) - 1).max() < 5e-3
        evidence = dict(zip(record.genes, weights.mean((0, 1)).sum(0), strict=True))
        shares = {g: evidence[g] for g in one.top_genes.symbols}
        total = sum(evidence[g] for g in record.genes if g in set(source.var_names))
        for gene, weight in zip(one.top_genes.symbols, one.top_genes.weights, strict=True):
            assert shares[gene] / total == pytest.approx(weight, rel=5e-3)


def test_a_row_asked_for_twice_is_described_once(model: cs.Model, cells: ad.AnnData) -> None:
    with open_cells(cells) as source:
        run = model.describe_cells(source, rows=np.array([4, 1, 4]), max_new_tokens=TOKENS)
    assert run.rows.tolist() == [4, 1]
    assert run.names == (cells.obs_names[4], cells.obs_names[1])


def test_embedding_keeps_what_describing_wrote(model: cs.Model, cells: ad.AnnData) -> None:
    model.describe(cells, max_new_tokens=TOKENS)
    settings = dict(cells.uns["cellscribe"])
    model.embed(cells)
    assert cells.uns["cellscribe"]["max_new_tokens"] == settings["max_new_tokens"] == TOKENS
    assert "cellscribe_embedding" in cells.uns
    cells.obs["half"] = ["x", "y"] * 5
    model.describe(cells, pool="half", max_new_tokens=TOKENS)
    assert "cellscribe_top_genes" not in cells.obsm  # a pool has none, and those of the cells are stale


def test_ties_between_bins_are_keyed_and_recorded(tiny_bundle: Path, cells: ad.AnnData) -> None:
    frames = {}
    for seed in (0, 0, 5):
        given = cells.copy()
        frames.setdefault(seed, []).append(cs.load(tiny_bundle, seed=seed).describe(given, max_new_tokens=TOKENS))
        assert given.uns["cellscribe"]["tie_seed"] == seed
    assert frames[0][0]["description"].tolist() == frames[0][1]["description"].tolist()
    assert frames[0][0]["mean_logprob"].tolist() != frames[5][0]["mean_logprob"].tolist()


@pytest.mark.parametrize("given", ["cells.h5ad", np.ones((2, 3))])
def test_what_is_not_anndata_is_refused(model: cs.Model, given: object) -> None:
    with pytest.raises(InputError, match="not AnnData"):
        model.describe(given)  # type: ignore[arg-type]


def test_progress_reaches_the_end(model: cs.Model, cells: ad.AnnData) -> None:
    seen: list[tuple[int, int, int]] = []
    with open_cells(cells) as source:
        run = model.describe_cells(source, max_new_tokens=TOKENS, progress=lambda *a: seen.append(a))
    assert seen[-1] == (10, 10, run.num_tokens)
    assert all(a[0] <= b[0] and a[2] <= b[2] for a, b in pairwise(seen))
    cells.obs["half"] = ["x", "y"] * 5
    seen.clear()
    with open_cells(cells) as source:
        model.describe_cells(source, pool="half", max_new_tokens=TOKENS, progress=lambda *a: seen.append(a))
    assert (10, 10, 0) in seen  # the cells are embedded first
    assert seen[-1][:2] == (12, 12)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_new_tokens": 5}, "max_new_tokens is 5"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 10_000}, "batch_size is 10000"),
    ],
)
def test_options_out_of_range_are_refused(
    model: cs.Model, cells: ad.AnnData, options: dict[str, int], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        model.describe(cells, **options)  # type: ignore[arg-type]
    assert "cellscribe" not in cells.uns


def test_a_gene_list_is_refused_by_a_bundle_with_its_own(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="chooses its genes itself"):
        cs.load(tiny_bundle, hvg=["CD3D"])
    with pytest.raises(UsageError, match="threads is 0"):
        cs.load(tiny_bundle, threads=0)
    with pytest.raises(BundleError, match="not a folder"):
        cs.load("no/such/bundle")


def test_the_engine_runs_with_torch_absent(tiny_bundle: Path) -> None:
    script = f"""
import sys
from itertools import pairwise
for name in ("torch", "transformers", "onnx", "onnxscript", "scanpy", "sklearn"):
    sys.modules[name] = None
import anndata, cellscribe as cs
from cellscribe.engine.packaged import packaged_cells
cells = anndata.read_h5ad(packaged_cells())[:2].copy()
assert cs.load({str(tiny_bundle)!r}).describe(cells, max_new_tokens=32)["description"].str.len().min() > 0
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_plans_reach_the_backend_that_is_chosen(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is for TensorRT and the backend is cuda"):
        cs.load(tiny_bundle, backend="cuda", plans=str(tmp_path))
