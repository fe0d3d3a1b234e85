"""Cells as ranks of genes against the tokens that the original gave, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cellscribe.engine.cells import open_cells
from cellscribe.engine.cells.parts import Part
from cellscribe.engine.errors import BundleError, InputError
from cellscribe.engine.ranks import RankInput, RankTokenizer, native, tokens
from cellscribe.engine.ranks.genes import packaged_dictionaries, rank_vocabulary
from cellscribe.engine.ranks.tokens import RankScale, rank_tokens

CASES = ("zheng68k_f32", "scp1884_f32_long", "he2020liver_i64", "edge_cases")
LANGCELL = RankInput()


@pytest.fixture(params=["compiled", "NumPy"])
def either_code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "NumPy":
        monkeypatch.setattr(native, "find_native", lambda: None)
    elif native.find_native() is None:
        pytest.skip("no native CPU library")


def golden(shared: Path, case: str) -> tuple[ad.AnnData, dict[str, np.ndarray]]:
    folder = shared / "fixtures" / "langcell_tokens"
    given, names, wanted = (dict(np.load(folder / f"{case}_{part}.npz")) for part in ("input", "genes", "expected"))
    x = sp.csr_matrix((given["data"], given["indices"], given["indptr"]), shape=tuple(given["shape"]))
    cells = pd.DataFrame(index=[f"{name} {i}" for i, name in enumerate(names["cells"])])
    genes = pd.DataFrame({"ensembl_id": names["ensembl_id"]}, index=[f"column {i}" for i in range(x.shape[1])])
    return ad.AnnData(x, cells, genes), wanted


@pytest.mark.usefixtures("either_code")
@pytest.mark.parametrize("case", CASES)
def test_tokens_are_those_of_the_original(shared: Path, case: str) -> None:
    cells, wanted = golden(shared, case)
    vocabulary = rank_vocabulary(*packaged_dictionaries())
    rows = wanted["kept_cells"]
    with open_cells(cells, values="counts") as source:
        found = list(RankTokenizer(LANGCELL, vocabulary, source).batches(rows, block_cells=4))
    by_row = {int(row): batch.cell(i) for batch in found for i, row in enumerate(batch.rows)}
    for i, row in enumerate(rows.tolist()):
        stable = wanted["tokens_stable"][wanted["offsets"][i] : wanted["offsets"][i + 1]]
        if not len(stable):  # the original gives <cls> alone
            assert row not in by_row
            continue
        cell = by_row[row]
        assert cell[0] == 25426
        np.testing.assert_array_equal(cell[1:], stable[:2047])
        batch = wanted["batch_input_ids"][i][wanted["batch_attention_mask"][i] == 1]
        assert len(cell) == len(batch)
        ties = wanted["tie_group"][wanted["offsets"][i] : wanted["offsets"][i + 1]]
        if len(np.unique(ties)) == len(ties):
            np.testing.assert_array_equal(cell, batch)
    failed = {row: why for batch in found for row, why in batch.failures}
    assert len(failed) == (case == "edge_cases")
    assert all(why == "none of the genes the model reads is expressed in it" for why in failed.values())


def test_both_codes_agree_on_any_values() -> None:
    if native.find_native() is None:
        pytest.skip("no native CPU library")
    random = np.random.default_rng(0)
    genes = 3000
    lengths = np.array([0, 1, 47, 48, 49, 300, 2500])
    indptr = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    indices = np.concatenate([np.sort(random.choice(genes, n, replace=False)) for n in lengths]).astype(np.int32)
    medians = random.choice([0.5, 1.0, 1.0, 2.0, 300.0], genes)
    scale = RankScale(np.where(random.random(genes) < 0.9, np.arange(genes), -1).astype(np.int32), medians, 2047)
    for data in (random.poisson(3.0, len(indices)) + 1.0, random.lognormal(0.0, 9.0, len(indices))):
        part = Part(indptr, indices, data.astype(np.float32))
        for one in (scale, replace(scale, is_single=False), replace(scale, is_logged=True), replace(scale, most=20)):
            if one.is_logged:
                part = replace(part, data=np.log1p(part.data))
            compiled = rank_tokens(part, one)
            linear = np.expm1(part.data.astype(np.float64)) if one.is_logged else None
            plain = tokens._rank_tokens(part, one, linear, tokens._totals(part))
            for mine, theirs in zip(compiled, plain, strict=True):
                assert mine.dtype == theirs.dtype
                np.testing.assert_array_equal(mine, theirs)


@pytest.mark.usefixtures("either_code")
def test_log_normalised_values_have_the_ranks_of_counts(shared: Path) -> None:
    cells, _ = golden(shared, "zheng68k_f32")
    logged = cells.copy()
    totals = np.asarray(cells.X.sum(1)).ravel()
    logged.X = (sp.diags(1e4 / totals) @ cells.X).log1p().astype(np.float32)
    vocabulary = rank_vocabulary(*packaged_dictionaries())
    found = []
    for one, kind in ((cells, "counts"), (logged, "lognorm")):
        with open_cells(one, values=kind) as source:
            found.append(next(RankTokenizer(LANGCELL, vocabulary, source).batches()))
    same = (found[0].tokens == found[1].tokens).mean()
    assert same > 0.99  # float32 logarithms make a few neighbours change places
    np.testing.assert_array_equal(np.sort(found[0].tokens), np.sort(found[1].tokens))


def test_symbols_serve_as_well_as_ids(shared: Path) -> None:
    cells, wanted = golden(shared, "zheng68k_f32")
    symbols = np.load(shared / "fixtures/langcell_tokens/zheng68k_f32_genes.npz")["symbols"]
    named = ad.AnnData(cells.X, cells.obs, pd.DataFrame(index=symbols))
    with open_cells(named, values="counts") as source:
        batch = next(RankTokenizer(LANGCELL, rank_vocabulary(*packaged_dictionaries()), source).batches())
    theirs = wanted["tokens_stable"][: wanted["offsets"][1]]
    # Genes that the original's dictionary does not know by their old symbols are found, too.
    assert set(theirs.tolist()) <= set(batch.cell(0).tolist())


def test_what_comes_before_and_after_the_genes() -> None:
    names, medians = packaged_dictionaries()
    names = {name: token for name, token in names.items() if token < 12} | {"<cls>": 12, "<eos>": 13}
    vocabulary = rank_vocabulary(names, medians)
    genes = [name for name, token in names.items() if 2 <= token < 12]
    cells = ad.AnnData(
        np.array([[5, 0, 0, 0, 0, 0, 0, 0, 0, 0], [0] * 10, [9, 8, 7, 6, 5, 4, 3, 2, 1, 1]], np.float32),
        pd.DataFrame(index=["one", "none", "all"]),
        pd.DataFrame(index=genes),
    )
    with open_cells(cells, values="counts") as source:
        (batch,) = RankTokenizer(RankInput(6, has_eos=True), vocabulary, source).batches()
        (bare,) = RankTokenizer(RankInput(4, has_cls=False), vocabulary, source).batches()
    assert batch.cell_ids == ("one", "all")
    assert batch.failures == ((1, "it has no counts"),)
    assert batch.cell(0).tolist() == [12, 2, 13]
    assert len(batch.cell(1)) == 6
    assert (batch.cell(1)[0], batch.cell(1)[-1]) == (12, 13)
    assert bare.cell(1).tolist() == batch.cell(1)[1:5].tolist()
    with open_cells(cells, values="counts") as source, pytest.raises(BundleError, match="no <eos> token"):
        RankTokenizer(RankInput(6, has_eos=True), rank_vocabulary(*packaged_dictionaries()), source)


def test_unknown_genes_are_one_sentence() -> None:
    cells = ad.AnnData(np.ones((2, 9), np.float32), var=pd.DataFrame(index=[f"nothing{i}" for i in range(9)]))
    with open_cells(cells, values="counts") as source, pytest.raises(InputError, match="Only 0% of the genes"):
        RankTokenizer(LANGCELL, rank_vocabulary(*packaged_dictionaries()), source)


def test_the_packaged_dictionaries_are_the_originals(shared: Path) -> None:
    folder = shared / "fixtures" / "data" / "langcell"
    found = packaged_dictionaries()
    for mine, name in zip(found, ("token_dictionary", "gene_median_dictionary"), strict=True):
        assert mine == json.loads((folder / f"{name}.json").read_text())


@pytest.mark.parametrize(
    ("names", "medians", "what"),
    [
        ({"<pad>": 0, "ENSG00000000003": 2}, {"ENSG00000000003": 1.0}, "numbers from 0 on"),
        ({"<mask>": 0, "ENSG00000000003": 1}, {"ENSG00000000003": 1.0}, "no <pad>"),
        ({"<pad>": 0, "ENSG00000000003": 1}, {}, "none of its genes has a median"),
    ],
)
def test_dictionaries_that_are_none(names: dict[str, int], medians: dict[str, float], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        rank_vocabulary(names, medians)
