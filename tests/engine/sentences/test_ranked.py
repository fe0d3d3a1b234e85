"""Order of genes, equal values, words."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import scipy.sparse as sp

from cellscribe.engine.cells.parts import Part
from cellscribe.engine.errors import InputError
from cellscribe.engine.keyed import cell_keys, stream_keys
from cellscribe.engine.sentences import SentenceGenes, native, rank_genes, to_sentences
from cellscribe.engine.sentences.native import NativeSentences
from cellscribe.engine.sentences.ranked import Ranked

GENES = SentenceGenes.of(f"gene{i}" for i in range(300))


def cells(num_cells: int = 40, seed: int = 3, *, whole: bool = True) -> Part:
    """Random counts with many ties; the second cell is empty."""
    rng = np.random.default_rng(seed)
    dense = rng.poisson(0.8, (num_cells, len(GENES.words))).astype(np.float32)
    if not whole:
        dense *= rng.random(dense.shape, np.float32)
    dense[1] = 0
    matrix = sp.csr_matrix(dense)
    return Part(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data)


def keys(num_cells: int, seed: int = 0) -> np.ndarray:
    return stream_keys(seed, cell_keys([f"cell{i}" for i in range(num_cells)]), 11)


def ranked(
    part: Part, with_: NativeSentences | None, num_genes: int | None = None, genes: SentenceGenes = GENES
) -> Ranked:
    with patch.object(native, "find_native", lambda: with_):
        return rank_genes(part, genes, keys(part.n_rows), num_genes)


@pytest.mark.parametrize("num_genes", [None, 1, 7, 100, 1000])
@pytest.mark.parametrize("whole", [True, False])
def test_compiled_and_numpy_agree(compiled: NativeSentences, num_genes: int | None, whole: bool) -> None:
    part = cells(whole=whole)
    ours, theirs = ranked(part, compiled, num_genes), ranked(part, None, num_genes)
    np.testing.assert_array_equal(ours.indptr, theirs.indptr)
    np.testing.assert_array_equal(ours.genes, theirs.genes)
    np.testing.assert_array_equal(ours.values, theirs.values)


def test_values_fall_and_all_genes_are_named(compiled: NativeSentences) -> None:
    part = cells()
    found = ranked(part, compiled)
    for i in range(part.n_rows):
        mine = slice(*found.indptr[i : i + 2])
        stored = slice(*part.indptr[i : i + 2])
        assert (np.diff(found.values[mine]) <= 0).all()
        assert sorted(found.genes[mine]) == sorted(part.indices[stored])


def test_fewer_genes_are_the_first_of_all(compiled: NativeSentences) -> None:
    whole, few = ranked(cells(), compiled), ranked(cells(), compiled, 12)
    for i in range(40):
        a, b = (one.genes[slice(*one.indptr[i : i + 2])] for one in (whole, few))
        np.testing.assert_array_equal(a[:12], b)


def test_equal_values_do_not_follow_the_columns(compiled: NativeSentences) -> None:
    """The same cell gives the same sentence whatever the order of genes and cells in the file."""
    part = cells()
    turned = np.random.default_rng(0).permutation(len(GENES.words))
    dense = sp.csr_matrix((part.data, part.indices, part.indptr), shape=(40, 300)).toarray()[:, turned]
    matrix = sp.csr_matrix(dense)
    other = Part(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data)
    names = SentenceGenes(tuple(GENES.words[i] for i in turned))
    first = to_sentences(ranked(part, compiled), GENES)
    assert to_sentences(ranked(other, compiled, genes=names), names) == first
    ties = ranked(part, compiled).genes[: len(part.indices) // 40]
    assert (np.diff(ties) < 0).any()
    assert (np.diff(ties) > 0).any()


def test_the_seed_changes_ties_alone(compiled: NativeSentences) -> None:
    part = cells()
    with patch.object(native, "find_native", lambda: compiled):
        a, b = (rank_genes(part, GENES, keys(40, seed)) for seed in (0, 1))
    np.testing.assert_array_equal(a.values, b.values)
    assert (a.genes != b.genes).any()


def test_stored_zeros_are_never_named(compiled: NativeSentences) -> None:
    part = Part(np.array([0, 3]), np.array([0, 1, 2], np.int32), np.array([2.0, 0.0, 1.0], np.float32))
    for with_ in (compiled, None):
        assert ranked(part, with_).genes.tolist() == [0, 2]
        assert ranked(part, with_, 1).genes.tolist() == [0]


def test_sentences_are_words_with_single_spaces(compiled: NativeSentences) -> None:
    genes = SentenceGenes.of(["a", "Bé", "c-1"])
    found = Ranked(np.array([0, 2, 2, 3]), np.array([1, 0, 2], np.int32), np.ones(3, np.float32))
    for with_ in (compiled, None):
        with patch.object(native, "find_native", lambda with_=with_: with_):
            assert to_sentences(found, genes) == ["BÉ A", "", "C-1"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["Actb", "ACTB", "gapdh", "GAPDH", "x"], "Actb and ACTB, gapdh and GAPDH"),
        (["a b"], "'a b'"),
        (["", "a"], "''"),
        (["a\tb"], "rename"),
    ],
)
def test_names_that_are_no_words(names: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        SentenceGenes.of(names, "the file")
