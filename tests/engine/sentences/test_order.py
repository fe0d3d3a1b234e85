"""The compiled order against NumPy's, bit for bit, on rows that are hard to sort."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import pytest

from cellscribe.engine.cells.parts import Part
from cellscribe.engine.keyed import cell_keys, stream_keys
from cellscribe.engine.sentences import SentenceGenes, native, rank_genes, to_sentences
from cellscribe.engine.sentences.native import NativeSentences
from cellscribe.engine.sentences.ranked import Ranked

Values = Callable[[np.random.Generator, int], np.ndarray]
GENES = SentenceGenes.of(f"g{i}" for i in range(70_000))
TINY = np.finfo(np.float32).smallest_subnormal


def powers(rng: np.random.Generator, n: int) -> np.ndarray:
    """Values of all sizes that a float has."""
    return np.clip(10.0 ** rng.uniform(-45, 38, n), TINY, None)


def near_pairs(rng: np.random.Generator, n: int) -> np.ndarray:
    """Values that only their last bits tell apart, many of each, and one far away: they share a bucket and a slot."""
    return np.append(rng.choice(np.float32([1, 1 + 2**-22, 1 + 2**-23]), n - 1), 3e38)


VALUES: dict[str, Values] = {
    "counts": lambda rng, n: rng.geometric(0.6, n),
    "large counts": lambda rng, n: rng.geometric(0.001, n),
    "one value": lambda rng, n: np.full(n, 2.5),
    "logarithms of counts": lambda rng, n: np.log1p(rng.geometric(0.5, n) * np.float32(3.7)),
    "no two alike": lambda rng, n: rng.random(n) + 0.001,
    "all sizes": powers,
    "subnormal": lambda rng, n: rng.integers(1, 5, n) * np.float64(TINY),
    "largest and least": lambda rng, n: rng.choice([float(TINY), float(np.finfo(np.float32).max)], n),
    "nearly alike": near_pairs,
}


def made_of(lengths: list[int], values: Values, seed: int = 5) -> Part:
    rng = np.random.default_rng(seed)
    indptr = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    columns = [np.sort(rng.choice(len(GENES.words), n, replace=False)) for n in lengths]
    data = [np.asarray(values(rng, n), np.float32)[:n] if n else np.empty(0, np.float32) for n in lengths]
    return Part(indptr, np.concatenate(columns).astype(np.int32), np.concatenate(data))


def ranked(part: Part, with_: NativeSentences | None, num_genes: int | None) -> Ranked:
    keys = stream_keys(0, cell_keys([f"cell{i}" for i in range(part.n_rows)]), 11)
    with patch.object(native, "find_native", lambda: with_):
        return rank_genes(part, GENES, keys, num_genes)


def same(part: Part, compiled: NativeSentences, num_genes: int | None) -> None:
    ours, theirs = ranked(part, compiled, num_genes), ranked(part, None, num_genes)
    np.testing.assert_array_equal(ours.indptr, theirs.indptr)
    np.testing.assert_array_equal(ours.genes, theirs.genes)
    np.testing.assert_array_equal(ours.values.view(np.int32), theirs.values.view(np.int32))


@pytest.mark.parametrize("num_genes", [1, 33, 200, None])
@pytest.mark.parametrize("kind", VALUES)
def test_every_length_and_kind_of_values(compiled: NativeSentences, kind: str, num_genes: int | None) -> None:
    lengths = [0, 1, 2, 3, 31, 32, 33, 34, 0, 199, 200, 201, 202, 511, 700, 1500]
    same(made_of(lengths, VALUES[kind]), compiled, num_genes)


@pytest.mark.parametrize("kind", VALUES)
def test_rows_of_more_entries_than_sixteen_bits_count(compiled: NativeSentences, kind: str) -> None:
    for num_genes in (200, 66_000):
        same(made_of([67_000, 5], VALUES[kind]), compiled, num_genes)


@pytest.mark.parametrize("seed", range(20))
def test_random_mixtures(compiled: NativeSentences, seed: int) -> None:
    rng = np.random.default_rng(seed)
    few = np.abs(rng.normal(size=rng.integers(1, 60))).astype(np.float32) * np.float32(10.0) ** rng.integers(-6, 6)
    part = made_of(rng.integers(0, 900, 12).tolist(), lambda rng, n: rng.choice(few + TINY, n), seed)
    same(part, compiled, int(rng.integers(1, 400)))


def test_draws_that_agree_in_their_upper_half(compiled: NativeSentences) -> None:
    """Genes of one key draw the same number: the column decides, and too many of one slot are still sorted."""
    keys = np.repeat(np.arange(40, dtype=np.uint64), 50)
    part = Part(np.array([0, 2000]), np.arange(2000, dtype=np.int32), np.ones(2000, np.float32))
    genes = SentenceGenes(GENES.words[:2000])
    row = stream_keys(0, cell_keys(["one"]), 11)
    object.__setattr__(genes, "keys", keys)
    found = []
    for with_ in (compiled, None):
        with patch.object(native, "find_native", lambda with_=with_: with_):
            found.append(rank_genes(part, genes, row, 777).genes)
    np.testing.assert_array_equal(*found)
    assert (np.diff(found[0][:50]) == 1).all()


@pytest.mark.parametrize("odd", [0.0, -0.0, -1.0, np.nan, np.inf, -np.inf])
def test_odd_values_are_left_to_numpy(compiled: NativeSentences, odd: float) -> None:
    part = made_of([40, 50, 60], VALUES["counts"])
    part.data[77] = odd
    kept = np.array([0, 10, 20, 30])
    assert compiled.rank(part, GENES.keys, stream_keys(0, cell_keys(["a", "b", "c"]), 11), kept) is None


def test_totals_and_cells_of_genes(compiled: NativeSentences) -> None:
    for kind, exact in (("counts", True), ("no two alike", False)):
        part = made_of([0, 1, 7, 8, 9, 16, 17, 400], VALUES[kind])
        num_cells = np.arange(len(GENES.words))
        totals = compiled.tally(part, num_cells)
        wanted = [part.data[a:b].astype(np.float64).sum() for a, b in zip(part.indptr, part.indptr[1:], strict=False)]
        np.testing.assert_allclose(totals, wanted, rtol=0 if exact else 1e-14)
        seen = np.bincount(part.indices, minlength=len(num_cells))
        np.testing.assert_array_equal(num_cells, np.arange(len(GENES.words)) + seen)
    assert compiled.tally(Part(part.indptr, part.indices, part.data.astype(np.float64)), num_cells) is None


def test_names_of_every_length(compiled: NativeSentences) -> None:
    """Names are moved sixteen bytes at a time: none may touch its neighbours, nor may the last one be cut."""
    for letter in ("X", "\N{GREEK CAPITAL LETTER GAMMA}"):
        genes = SentenceGenes.of(letter * n for n in range(1, 70))
        order = np.random.default_rng(2).integers(0, 69, 500).astype(np.int32)
        found = Ranked(np.array([0, 0, 1, 200, 200, 500, 500]), order, np.ones(500, np.float32))
        sentences = []
        for with_ in (compiled, None):
            with patch.object(native, "find_native", lambda with_=with_: with_):
                sentences.append(to_sentences(found, genes))
        assert sentences[0] == sentences[1]
        assert sentences[0][1] == letter * (order[0] + 1)
