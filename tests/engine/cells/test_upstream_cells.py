"""Parity with scGPT's own binning, gene choice and tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from anndata import read_h5ad

from cellscribe.engine.cells import (
    CellInput,
    CellTokenizer,
    GeneVocabulary,
    bin_bounds,
    bin_values,
    choose_hvgs,
    match_genes,
    open_cells,
)


@pytest.fixture(scope="module")
def binning(shared: Path) -> dict[str, np.ndarray]:
    return dict(np.load(shared / "fixtures/scgpt_binning/binning_float32_n51.npz"))


def test_bounds_are_upstreams(binning):
    left, right = bin_bounds(binning["data"], binning["indptr"].astype(np.int64), 51)
    np.testing.assert_array_equal(np.minimum(left, right + 1), binning["lo"])
    np.testing.assert_array_equal(left, binning["hi"])


def test_keyed_draws_are_legal_and_spread(binning):
    data, indptr = binning["data"], binning["indptr"].astype(np.int64)
    drawn = np.random.default_rng(0).random(len(data), dtype=np.float32)
    digits = bin_values(data, indptr, n_bins=51, uniforms=drawn)
    lo, hi = binning["lo"], binning["hi"]
    assert (digits >= lo).all()
    assert (digits <= hi).all()
    wide = hi > lo
    assert 0.47 < np.mean((digits - lo)[wide] / (hi - lo)[wide]) < 0.53


def test_replay_of_upstreams_random_numbers(binning):
    data, indptr = binning["data"], binning["indptr"].astype(np.int64)
    for index, seed in enumerate(binning["seeds"]):
        together = np.random.RandomState(seed).random_sample(len(data))
        each = np.concatenate([np.random.RandomState(seed).random_sample(n) for n in np.diff(indptr)])
        for name, drawn in (("digits_class", together), ("digits_fn", each)):
            digits = bin_values(data, indptr, n_bins=51, uniforms=drawn)
            np.testing.assert_array_equal(digits, binning[name][index])


@pytest.mark.parametrize(("flavor", "min_counts"), [("seurat_v3", 5), ("cell_ranger", 3)])
def test_variable_genes_are_upstreams(shared, flavor, min_counts):
    pytest.importorskip("scanpy")
    pytest.importorskip("skmisc")
    expected = json.loads((shared / f"fixtures/scgpt_hvg/hvg_{flavor}_1200.json").read_text())
    with open_cells(shared / "data/zheng68k.h5ad") as source:
        vocabulary = GeneVocabulary(("<pad>", "<cls>", *source.var_names))
        tokens = match_genes(source.var_names, vocabulary).token_of_column
        genes = choose_hvgs(source, tokens, vocabulary.tokens, n_top=1200, flavor=flavor, min_counts=min_counts)
    certain = set(expected["hvg"]) - set(expected["tied_at_cutoff"])
    assert len(genes) == 1200
    assert certain <= set(genes)
    assert set(genes) - certain <= set(expected["tied_at_cutoff"])
    assert list(genes) == sorted(genes, key=vocabulary.index.__getitem__)


def base_vocabulary(shared: Path) -> GeneVocabulary:
    ids = json.loads((shared / "fixtures/scgpt_base/ckpt/vocab.json").read_text())
    return GeneVocabulary(tuple(sorted(ids, key=ids.__getitem__)))


def zero_shot(num_genes: int = 1199) -> CellInput:
    return CellInput("ragged", "all", num_genes, cls_value=-2.0, target_sum=None, log1p=False)


def test_tokens_end_to_end(shared):
    expected = np.load(shared / "fixtures/scgpt_base/e2e_expected.npz")
    with open_cells(shared / "fixtures/scgpt_base/e2e_tiefree.h5ad", values="counts") as source:
        (batch,) = CellTokenizer(zero_shot(), base_vocabulary(shared), source).batches()
    np.testing.assert_array_equal(batch.genes, expected["gene_ids"])
    np.testing.assert_array_equal(batch.values, expected["values"])
    np.testing.assert_array_equal(batch.cell_ids, expected["cell_names"])


def test_ragged_tokens_within_legal_bins(shared):
    golden = np.load(shared / "fixtures/scgpt_base/ragged.npz")
    with open_cells(shared / "data/zheng68k.h5ad") as source:
        rows = source.rows_of(golden["cell_names"].tolist())
        (batch,) = CellTokenizer(zero_shot(), base_vocabulary(shared), source).batches(rows)
    S = batch.genes.shape[1]
    np.testing.assert_array_equal(batch.genes, golden["gene_ids"][:, :S])
    np.testing.assert_array_equal(batch.mask, ~golden["padding_mask"][:, :S])
    digits = batch.values[:, 1:][batch.mask[:, 1:]]
    assert (digits >= golden["bin_lo"][:, 1:S][batch.mask[:, 1:]]).all()
    assert (digits <= golden["bin_hi"][:, 1:S][batch.mask[:, 1:]]).all()


def test_fixed_tokens_within_legal_bins(shared):
    golden = np.load(shared / "fixtures/scgpt_base/fixed.npz")
    genes = golden["hvg_genes"].tolist()
    with open_cells(shared / "data/zheng68k.h5ad") as source:
        rows = source.rows_of(golden["cell_names"].tolist())
        tokenizer = CellTokenizer(CellInput("fixed", "hvg", 180), base_vocabulary(shared), source, hvg=genes)
        (batch,) = tokenizer.batches(rows)
    order = np.argsort(golden["gene_ids"][0, 1:])
    np.testing.assert_array_equal(batch.genes[:, 1:], golden["gene_ids"][:, 1:][:, order])
    assert (batch.values[:, 1:] >= golden["bin_lo"][:, 1:][:, order]).all()
    assert (batch.values[:, 1:] <= golden["bin_hi"][:, 1:][:, order]).all()


def test_normalised_values_are_upstreams(shared):
    golden = np.load(shared / "fixtures/scgpt_base/fixed.npz")
    vocabulary = base_vocabulary(shared)
    adata = read_h5ad(shared / "data/zheng68k.h5ad")
    known = [name in vocabulary.index for name in adata.var_names]
    adata = adata[:, known & (np.asarray(adata.X.sum(axis=0)).ravel() >= 3)]  # upstream's totals are over these
    with open_cells(adata) as source:
        rows = source.rows_of(golden["cell_names"].tolist())
        spec = CellInput("fixed", "hvg", 180, n_bins=0)
        (batch,) = CellTokenizer(spec, vocabulary, source, hvg=golden["hvg_genes"].tolist()).batches(rows)
    order = np.argsort(golden["gene_ids"][0, 1:])
    np.testing.assert_allclose(batch.values[:, 1:], golden["log1p"][:, order], rtol=2e-6)
