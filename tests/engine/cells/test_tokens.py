from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData

from cellscribe.engine.cells import CellInput, CellTokenizer, GeneVocabulary, bin_values, open_cells
from cellscribe.engine.cells.undo import prove_log_scale
from cellscribe.engine.errors import BundleError, InputError


def tokens_of(cells, spec, vocabulary, rows=None, batch_cells=4, **options):
    """Every cell as {token id: value}."""
    with open_cells(cells) as source:
        tokenizer = CellTokenizer(spec, vocabulary, source, **options)
        found = {}
        for batch in tokenizer.batches(rows, batch_cells):
            for i, name in enumerate(batch.cell_ids):
                real = batch.mask[i]
                found[name] = dict(zip(batch.genes[i, real].tolist(), batch.values[i, real].tolist(), strict=True))
        return found


SPECS = {
    "fixed": CellInput("fixed", "list", 12, n_bins=5),
    "fixed values": CellInput("fixed", "list", 12, n_bins=0),
    "ragged": CellInput("ragged", "all", 12, n_bins=5, cls_value=-2.0),
    "thinned": CellInput("ragged", "all", 4, n_bins=5, cls_value=-2.0),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_cell_is_the_same_whatever_surrounds_it(cells, vocabulary, name):
    spec = SPECS[name]
    expected = tokens_of(cells, spec, vocabulary)
    rng = np.random.default_rng(1)
    order = rng.permutation(cells.n_obs)
    for batch_cells in (1, 3, 100):
        assert tokens_of(cells, spec, vocabulary, order, batch_cells) == expected
    shuffled = cells[order][:, rng.permutation(cells.n_vars)].copy()
    assert tokens_of(shuffled, spec, vocabulary) == expected
    some = tokens_of(cells[3:5].copy(), spec, vocabulary)
    assert some == {key: expected[key] for key in some}
    if "values" not in name:
        assert tokens_of(cells, spec, vocabulary, seed=1) != expected


def test_fixed_layout(cells, vocabulary, fixed):
    cells = cells[:, ["LYZ", "CD3D", "CD14"]].copy()
    with open_cells(cells) as source:
        tokenizer = CellTokenizer(fixed, vocabulary, source)
        batch = next(tokenizer.batches(batch_cells=4))
    assert batch.genes.shape == batch.values.shape == batch.mask.shape == batch.columns.shape == (4, 13)
    assert (batch.genes.dtype, batch.values.dtype, batch.mask.dtype) == (np.int64, np.float32, bool)
    assert batch.genes.flags.c_contiguous
    assert batch.values.flags.c_contiguous
    assert tuple(vocabulary.tokens[t] for t in batch.genes[0]) == ("<cls>", *tokenizer.genes)
    assert (np.diff(batch.genes[0, 1:]) > 0).all()
    assert batch.mask.all()
    place = {vocabulary.tokens[t]: i for i, t in enumerate(batch.genes[0])}
    assert batch.columns[0, place["LYZ"]] == 0
    assert batch.columns[0, place["GNLY"]] == -1
    absent = [i for gene, i in place.items() if gene not in cells.var_names and gene != "<cls>"]
    assert (batch.values[:, absent] == 0).all()
    assert (batch.values[:, place["CD3D"]] > 0).all()


def test_ragged_layout(cells, vocabulary):
    spec = CellInput("ragged", "all", 12, n_bins=5, cls_value=-2.0, pad_value=-3.0)
    with open_cells(cells) as source:
        (batch,) = CellTokenizer(spec, vocabulary, source).batches()
    counts = cells.X.toarray()
    lengths = 1 + (counts > 0).sum(1)
    assert batch.genes.shape == (9, lengths.max())
    np.testing.assert_array_equal(batch.mask.sum(1), lengths)
    assert (batch.genes[~batch.mask] == vocabulary.pad_id).all()
    assert (batch.values[~batch.mask] == -3).all()
    assert (batch.columns[~batch.mask] == -1).all()
    assert (batch.values[:, 0] == -2).all()
    for row in range(9):
        np.testing.assert_array_equal(batch.columns[row, 1 : lengths[row]], np.flatnonzero(counts[row]))


def test_empty_cells_fail_alone(cells, vocabulary, fixed):
    dense = cells.X.toarray()
    dense[2] = 0
    dense[5, :11] = 0
    dense[5, 11] = 3
    cells.X = sp.csr_matrix(dense)
    cells.var_names = [*cells.var_names[:11], "UNKNOWN"]
    for spec in (fixed, CellInput("ragged", "all", 12)):
        with open_cells(cells) as source:
            batches = list(CellTokenizer(spec, vocabulary, source).batches(batch_cells=1))
            (together,) = CellTokenizer(spec, vocabulary, source).batches()
        assert [batch.n_cells for batch in batches] == [1, 1, 0, 1, 1, 0, 1, 1, 1]
        assert dict(together.failures) == {
            2: "it has no counts",
            5: "none of the genes the model reads is expressed in it",
        }
        assert together.cell_ids == tuple(f"cell{i}" for i in (0, 1, 3, 4, 6, 7, 8))


def test_totals_are_over_all_genes_of_the_file(cells, vocabulary):
    spec = CellInput("fixed", "list", 12, n_bins=0, target_sum=100.0)
    cells.var_names = [*cells.var_names[:11], "UNKNOWN"]
    counts = cells.X.toarray()
    found = tokens_of(cells, spec, vocabulary)
    expected = np.log1p(counts / counts.sum(1, keepdims=True) * 100)
    for row in range(9):
        for column, gene in enumerate(cells.var_names[:11]):
            assert found[f"cell{row}"][vocabulary.index[gene]] == pytest.approx(expected[row, column], rel=1e-5)


def logged(cells, total=1e4):
    counts = cells.X.toarray()
    other = cells.copy()
    other.X = sp.csr_matrix(np.log1p(counts / counts.sum(1, keepdims=True) * total).astype("f4"))
    return other


def test_logged_input(cells, vocabulary):
    values = CellInput("fixed", "list", 12, n_bins=0)
    one, two = tokens_of(cells, values, vocabulary), tokens_of(logged(cells), values, vocabulary)
    for name in one:
        assert two[name] == pytest.approx(one[name], rel=1e-5)
    bins = CellInput("fixed", "list", 12, n_bins=5)
    assert tokens_of(logged(cells), bins, vocabulary) == tokens_of(cells, bins, vocabulary)


def test_logarithm_is_undone_where_it_can_be_shown(cells, vocabulary):
    for target in (1e3, None):
        spec = CellInput("fixed", "list", 12, n_bins=0, target_sum=target, log1p=False)
        if target is None:
            counts = cells.X.toarray()
            counts[:, 1] = 1
            cells.X = sp.csr_matrix(counts)
        one, two = tokens_of(cells, spec, vocabulary), tokens_of(logged(cells), spec, vocabulary)
        for name in one:
            assert two[name] == pytest.approx(one[name], rel=1e-4)
    broken = logged(cells)
    broken.X.data *= np.random.default_rng(0).uniform(0.5, 1.0, broken.X.nnz).astype("f4")
    with pytest.raises(InputError, match="cannot be restored"):
        tokens_of(broken, spec, vocabulary)


@pytest.mark.parametrize("layout", ["fixed", "ragged"])
@pytest.mark.parametrize("is_logged", [False, True])
def test_duplicate_genes_are_added_up(cells, vocabulary, layout, is_logged):
    split = sp.csr_matrix(np.hstack([cells.X.toarray()[:, ::-1], cells.X.toarray()[:, :3]]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twice = AnnData(split, obs=cells.obs)
        twice.var_names = [*cells.var_names[::-1], *cells.var_names[:3]]
        summed = cells.copy()
        summed.X = sp.csr_matrix(cells.X.toarray() * np.array([2] * 3 + [1] * 9))
        if is_logged:
            twice, summed = logged(twice), logged(summed)
        spec = CellInput(layout, "list", 12, n_bins=0)
        one, two = tokens_of(twice, spec, vocabulary), tokens_of(summed, spec, vocabulary)
    for name in one:
        assert one[name] == pytest.approx(two[name], rel=1e-5)


def test_chosen_genes(cells, vocabulary):
    spec = CellInput("fixed", "hvg", 3)
    with open_cells(cells) as source:
        tokenizer = CellTokenizer(spec, vocabulary, source, hvg=["CD3D", "ENSG00000090382", "lyz"][:2])
        assert set(tokenizer.genes) == {"CD3D", "LYZ"}
        with pytest.raises(InputError, match="does not know the gene 'NOPE'"):
            CellTokenizer(spec, vocabulary, source, hvg=["CD3D", "NOPE"])
        bare = GeneVocabulary(vocabulary.tokens)
        with pytest.raises(BundleError, match="list of its own"):
            CellTokenizer(CellInput("fixed", "list", 3), bare, source)


def test_variable_genes_do_not_depend_on_order(make):
    pytest.importorskip("scanpy")
    genes = tuple(f"G{i:03d}" for i in range(300))
    cells = make(120, genes)
    cells.X = sp.csr_matrix(np.random.default_rng(0).negative_binomial(1, 0.3 / (1 + np.arange(300) / 60), (120, 300)))
    vocabulary = GeneVocabulary(("<pad>", "<cls>", *genes))
    for flavor in ("seurat_v3", "cell_ranger"):
        spec = CellInput("fixed", "hvg", 50, hvg_flavor=flavor)
        with open_cells(cells) as one, open_cells(cells[:, ::-1].copy()) as two:
            chosen = CellTokenizer(spec, vocabulary, one).genes
            assert chosen == CellTokenizer(spec, vocabulary, two).genes
            assert len(chosen) == 50
    with open_cells(logged(cells)) as source:
        tokenizer = CellTokenizer(CellInput("fixed", "hvg", 400), vocabulary, source)
    said = " ".join(tokenizer.notes)
    assert "chosen with cell_ranger, because seurat_v3 needs counts" in said
    assert "expects 400" in said


def test_failing_choice_is_a_sentence(make):
    pytest.importorskip("skmisc")
    genes = tuple(f"G{i}" for i in range(12))
    cells = make(30, genes)
    counts = np.eye(30, 12, dtype="f4") * 5
    counts[:, 0] = 1
    cells.X = sp.csr_matrix(counts)
    vocabulary = GeneVocabulary(("<pad>", "<cls>", *genes))
    with open_cells(cells) as source, pytest.raises(InputError, match=r"cannot be chosen with seurat_v3.*cell_ranger"):
        CellTokenizer(CellInput("fixed", "hvg", 5), vocabulary, source)


def test_missing_scanpy_is_a_sentence(cells, vocabulary, monkeypatch):
    import sys

    from cellscribe.engine.errors import UsageError

    monkeypatch.setitem(sys.modules, "scanpy", None)
    with open_cells(cells) as source, pytest.raises(UsageError, match=r"cellscribe\[hvg\]"):
        CellTokenizer(CellInput("fixed", "hvg", 5), vocabulary, source)


def naive_bins(row, n_bins, u):
    edges = np.quantile(row.astype(np.float64), np.linspace(0, 1, n_bins - 1))
    left, right = np.digitize(row, edges), np.digitize(row, edges, right=True)
    return np.ceil(u * (right - left) + left).astype(int)


@pytest.mark.parametrize("n_bins", [3, 7, 51])
def test_binning_equals_one_row_at_a_time(n_bins):
    rng = np.random.default_rng(n_bins)
    lengths = rng.integers(0, 130, 60)
    indptr = np.concatenate(([0], np.cumsum(lengths)))
    counts = rng.geometric(0.4, indptr[-1])
    for data in (counts.astype("f4"), np.log1p(counts * rng.uniform(1, 9)).astype("f4"), rng.random(len(counts), "f4")):
        u = rng.random(len(data))
        rows = [naive_bins(data[a:b], n_bins, u[a:b]) for a, b in pairwise(indptr) if b > a]
        np.testing.assert_array_equal(bin_values(data, indptr, n_bins=n_bins, uniforms=u), np.concatenate(rows))


def test_engine_reads_cells_without_torch_or_scanpy():
    import subprocess
    import sys

    code = "import sys, cellscribe.engine.cells; print([m for m in ('torch', 'scanpy', 'skmisc') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_large_value_does_not_prove_that_fractions_were_counts() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (20, 50)).astype("f8")
    counts[:, 0], counts[:, 1] = 1, 3000
    fractions = rng.gamma(2.0, 2.0, (20, 50))
    fractions[:, 1] = 2000
    for values, proven in ((counts, True), (counts / counts.sum(1, keepdims=True) * 1e4, True), (fractions, False)):
        with open_cells(AnnData(sp.csr_matrix(np.log1p(values).astype("f4"))), values="lognorm") as source:
            if proven:
                assert prove_log_scale(source, None) == "counts"
            else:
                with pytest.raises(InputError, match="cannot be restored"):
                    prove_log_scale(source, None)
