from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from cellscribe.engine.errors import InputError
from cellscribe.engine.instruct.genes import gene_columns, in_gene_order

CASES = ("he2020liver_exact", "uppercase_dups_small", "he2020liver_upper", "exact_dups_small")


@pytest.mark.parametrize("case", CASES)
def test_columns_are_the_originals(shared: Path, case: str) -> None:
    folder = shared / "fixtures" / "instructcell_genes"
    meta = json.loads((folder / f"{case}_meta.json").read_text())
    given, wanted = (dict(np.load(folder / f"{case}_{name}.npz")) for name in ("input", "expected"))
    listed = meta["vocab"] != "inline"
    genes = json.loads((folder.parent / meta["vocab"]).read_text()) if listed else meta["vocab_inline"]
    matrix = sp.csr_matrix((given["data"], given["indices"], given["indptr"]), given["shape"])
    places = gene_columns(given["symbols"].tolist(), genes, ignores_case=meta["force_gene_symbol_uppercase"])
    assert (places >= 0).sum() == wanted["matched_genes"]
    found = in_gene_order(matrix, places, len(genes))
    assert found.shape == tuple(wanted["shape"])
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(found, name), wanted[name])


def test_what_cannot_be_matched_is_one_sentence() -> None:
    with pytest.raises(InputError, match="none of the 2 genes is one of the model's 1"):
        gene_columns(["x", "y"], ["CD19"])
    with pytest.raises(
        InputError, match=r"model's 1 as they are written \(1 are there in another case, as of other species\)"
    ):
        gene_columns(["Cd19", "y"], ["CD19"])
    with pytest.raises(InputError, match="1 of the model's 2 genes are named twice"):
        gene_columns(["A"], ["a", "A"], ignores_case=True)
