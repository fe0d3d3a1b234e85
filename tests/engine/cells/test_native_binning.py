"""The compiled way from rows to digits gives the bits of the NumPy one, for every input."""

from __future__ import annotations

import warnings
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData, read_h5ad
from compiled_binning import compile_binning, using
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellscribe.engine.cells import CellInput, CellTokenizer, CsrBlock, GeneVocabulary, native_binning, open_cells
from cellscribe.engine.cells.feed import Fed, Feeder
from cellscribe.engine.cells.layout import thinned
from cellscribe.engine.cells.native_binning import NativeBinning
from cellscribe.engine.cells.parts import Part
from cellscribe.engine.errors import InputError
from cellscribe.engine.keyed import cell_keys, stream_keys, uniforms

many = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
GENES = 90


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> NativeBinning:
    return compile_binning(tmp_path_factory.mktemp("binning"))


VALUES = {
    "ones": lambda rng, n: np.ones(n),
    "counts": lambda rng, n: rng.geometric(0.5, n),
    "large counts": lambda rng, n: rng.integers(1, 9000, n),
    "beyond 2**23": lambda rng, n: rng.integers(2**22, 2**26, n),
    "fractions": lambda rng, n: rng.random(n) + 1e-3,
    "few fractions": lambda rng, n: rng.choice([0.1, 0.3, 1.7, 2.0], n),
    "any size": lambda rng, n: 10.0 ** rng.uniform(-44, 38, n),
    "huge": lambda rng, n: rng.choice([3e38, 1e38, 1.0], n),
    "stored zeros": lambda rng, n: rng.choice([0.0, 1.0, 2.0], n),
    "infinite": lambda rng, n: rng.choice([1.0, np.inf], n),
    "NaN": lambda rng, n: rng.choice([1.0, np.nan, -1.0], n),
}


def rows_of(rng: np.random.Generator, kinds: list[str]) -> Part:
    """One row of each kind, some of them empty, of one value or full."""
    lengths = [int(rng.choice([0, 1, 2, 50, GENES, rng.integers(0, GENES + 1)])) for _ in kinds]
    indices = [np.sort(rng.choice(GENES, n, replace=False)) for n in lengths]
    data = [VALUES[kind](rng, n) for kind, n in zip(kinds, lengths, strict=True)]
    indptr = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    return Part(indptr, np.concatenate([[], *indices]).astype(np.int32), np.concatenate([[], *data]).astype(np.float32))


def same_bits(one: Fed, two: Fed) -> None:
    for name in ("indptr", "slots", "values"):
        left, right = getattr(one, name), getattr(two, name)
        assert (left.dtype, left.shape) == (right.dtype, right.shape)
        assert left.tobytes() == right.tobytes()


@many
@given(
    seed=st.integers(0, 2**32 - 1),
    kinds=st.lists(st.sampled_from(sorted(VALUES)), max_size=6),
    n_bins=st.sampled_from([0, 3, 51, 2000]),
    target=st.sampled_from([None, 1e4, 1.0, 1e-30, 1e38]),
    log1p=st.booleans(),
    is_logged=st.booleans(),
)
def test_a_block_is_fed_the_same(native, seed, kinds, n_bins, target, log1p, is_logged):
    rng = np.random.default_rng(seed)
    block = CsrBlock(np.arange(len(kinds)), rows_of(rng, kinds), GENES)
    slots = np.full(GENES, -1)
    fed = rng.permutation(GENES)[: rng.integers(0, GENES + 1)]
    slots[fed] = rng.permutation(len(fed))
    tokens = np.sort(rng.choice(60_000, len(fed), replace=False))
    spec = CellInput(
        "fixed", "all", GENES, n_bins=n_bins, target_sum=target, log1p=log1p or (is_logged and n_bins == 0)
    )
    draws = stream_keys(seed, rng.integers(0, 2**63, len(kinds)).astype(np.uint64))
    source = SimpleNamespace(value_kind="lognorm" if is_logged else "counts")
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with using(None):
            expected = Feeder(spec, source, slots, tokens).feed(block, draws)
            dense = expected.dense(len(fed) + 1, -2.0)
        with using(native):
            found = Feeder(spec, source, slots, tokens).feed(block, draws)
            assert found.dense(len(fed) + 1, -2.0).tobytes() == dense.tobytes()
    same_bits(found, expected)


@pytest.mark.parametrize("kind", ["counts", "large counts", "beyond 2**23", "fractions", "few fractions"])
@pytest.mark.parametrize("n_bins", [0, 51])
def test_the_compiled_code_is_what_ran(native, kind, n_bins):
    part = rows_of(np.random.default_rng(0), [kind] * 20)
    with using(native):
        spec = CellInput("fixed", "all", GENES, n_bins=n_bins, target_sum=1e4)
        feeder = Feeder(spec, SimpleNamespace(value_kind="counts"), np.arange(GENES), np.arange(GENES))
        assert feeder._native is not None
        assert feeder._native.feed(CsrBlock(np.arange(20), part, GENES), np.arange(20, dtype=np.uint64)) is not None


@many
@given(
    seed=st.integers(0, 2**32 - 1),
    kinds=st.lists(st.sampled_from(["counts", "any size", "stored zeros", "infinite", "NaN"]), max_size=5),
    harm=st.sampled_from(["", "falls", "repeats", "beyond", "negative"]),
)
def test_plain_rows(native, seed, kinds, harm):
    rng = np.random.default_rng(seed)
    part = rows_of(rng, kinds)
    indices = part.indices.copy()
    if harm and len(indices) > 1:
        at = int(rng.integers(1, len(indices)))
        indices[at] = {"falls": 0, "repeats": indices[at - 1], "beyond": GENES, "negative": -1}[harm]
    rises = all((np.diff(indices[a:b].astype(np.int64)) > 0).all() for a, b in pairwise(part.indptr))
    in_range = bool(((indices >= 0) & (indices < GENES)).all())
    expected = rises and in_range and bool((np.isfinite(part.data) & (part.data > 0)).all())
    assert native.rows_are_plain(part.indptr, indices, part.data, GENES) == expected
    assert not native.rows_are_plain(part.indptr, indices.astype(np.int64), part.data, GENES)
    if len(indices):
        assert not native.rows_are_plain(part.indptr, indices[:-1], part.data, GENES)


@many
@given(names=st.lists(st.text(max_size=300), max_size=8))
def test_cell_keys(native, names):
    found = native.cell_keys(names)
    if any("\0" in name for name in names):
        assert found is None
    else:
        np.testing.assert_array_equal(found, cell_keys(names))


def outcome(cells: AnnData, spec: CellInput, rows: np.ndarray | None = None, **options: object) -> list[object]:
    """Everything the tokenizer gives, or its sentence."""
    vocabulary = GeneVocabulary(("<pad>", "<cls>", *cells.var_names), input_genes=tuple(cells.var_names[::2]))
    try:
        with open_cells(cells, **options) as source:
            found = list(CellTokenizer(spec, vocabulary, source, seed=3).batches(rows, 4))
    except InputError as error:
        return [str(error)]
    return [
        (
            b.rows.tolist(),
            b.cell_ids,
            b.failures,
            *(getattr(b, x).tobytes() for x in ("genes", "values", "mask", "columns")),
        )
        for b in found
    ]


SPECS = (
    CellInput("fixed", "list", GENES),
    CellInput("fixed", "list", GENES, n_bins=0),
    CellInput("ragged", "all", 20, target_sum=None, log1p=False),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(["f4", "f8", "i4", "i8", "u2"]),
    index_dtype=st.sampled_from(["i4", "i8"]),
    harm=st.sampled_from(["", "", "unsorted", "twice", "zeros", "nan", "negative", "infinite", "fractions"]),
    spec=st.sampled_from(SPECS),
)
def test_a_matrix_gives_the_same_tokens_or_sentence(native, seed, dtype, index_dtype, harm, spec):
    rng = np.random.default_rng(seed)
    X = sp.random(11, GENES, 0.4, "csr", random_state=rng, data_rvs=lambda n: rng.geometric(0.4, n)).astype(dtype)
    X = sp.csr_matrix(X[rng.permutation(12) % 11])
    X.sort_indices()
    values = {"nan": np.nan, "negative": -1, "infinite": np.inf, "zeros": 0, "fractions": 0.5}
    if harm in values and len(X.data) and (X.dtype.kind == "f" or harm in ("zeros",)):
        X.data[rng.integers(0, len(X.data), 5)] = values[harm]
    if len(X.indices) > 1 and harm in ("unsorted", "twice"):
        at = int(rng.integers(1, len(X.indices)))
        X.indices[at - 1] = X.indices[at] if harm == "twice" else (X.indices[at - 1] + 7) % GENES
        X.has_sorted_indices = False
    X.indices, X.indptr = X.indices.astype(index_dtype), X.indptr.astype(index_dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells = AnnData(X)
    rows = rng.integers(0, 12, 9) if seed % 2 else None
    options = {"values": "counts"} if harm == "fractions" else {}
    with using(None):
        expected = outcome(cells, spec, rows, **options)
    before = X.data.tobytes()
    with using(native):
        assert outcome(cells, spec, rows, **options) == expected
    assert X.data.tobytes() == before


@pytest.mark.parametrize(("name", "is_file"), [("zheng68k", True), ("scp1884", False), ("he2020liver", False)])
def test_real_cells(native, shared: Path, name, is_file):
    path = shared / f"data/{name}.h5ad"
    vocabulary = GeneVocabulary(("<pad>", "<cls>", *read_h5ad(path, backed="r").var_names))
    digests = []
    for found in (None, native):
        with using(found), open_cells(path if is_file else read_h5ad(path)) as source:
            for spec in (CellInput("fixed", "all", 1200), CellInput("ragged", "all", 900)):
                batches = list(CellTokenizer(spec, vocabulary, source).batches(np.arange(min(source.n_cells, 150)), 32))
                digests.append(b"".join(b.values.tobytes() + b.genes.tobytes() + b.mask.tobytes() for b in batches))
    assert digests[:2] == digests[2:]


@many
@given(seed=st.integers(0, 2**32 - 1), most=st.integers(1, 40))
def test_thinning_takes_the_smallest_draws(seed, most):
    rng = np.random.default_rng(seed)
    part = rows_of(rng, ["counts"] * 4)
    fed, tokens = Fed(part.indptr, part.indices.astype(np.int64), part.data), rng.permutation(60_000)[:GENES]
    keys = rng.integers(0, 2**63, 4).astype(np.uint64)
    entry_tokens = tokens[fed.slots]
    order = np.lexsort((entry_tokens, uniforms(np.repeat(keys, fed.lengths), entry_tokens), fed.row_of))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - fed.indptr[fed.row_of[order]]
    same_bits(thinned(fed, tokens, keys, most), fed.keep(rank < most))


def test_a_library_of_another_release_is_not_used():
    import ctypes

    assert native_binning.opened(ctypes.CDLL(None)) is None
