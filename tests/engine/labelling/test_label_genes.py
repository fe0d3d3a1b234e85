"""Expression by label, marker genes, and comparison with known labels."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cellscribe.engine.cells import open_cells
from cellscribe.engine.errors import InputError
from cellscribe.engine.labelling.confusion import confusion
from cellscribe.engine.labelling.expression import LabelExpression, expression_by_label
from cellscribe.engine.labelling.markers import markers, places_of, read_markers


def test_means_and_shares_are_those_of_scanpys_normalisation(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(0.7, (9, 6)).astype(np.float32)
    counts[:, 0] += 1
    labels = ["B", "T", "B", "", "T", "B", "T", "B", "B"]
    obs, var = pd.DataFrame(index=[f"c{i}" for i in range(9)]), pd.DataFrame(index=[f"G{i}" for i in range(6)])
    ad.AnnData(sp.csr_matrix(counts), obs=obs, var=var).write_h5ad(tmp_path / "cells.h5ad")
    rows = np.array([8, 0, 1, 2, 3, 4, 5, 6, 7])
    with open_cells(tmp_path / "cells.h5ad", values="counts") as source:
        found = expression_by_label(source, rows, [labels[row] for row in rows])
    assert found.labels == ("B", "T")
    assert found.num_cells.tolist() == [5, 3]
    normal = np.log1p(counts / counts.sum(1, keepdims=True) * 1e4)
    for place, label in enumerate(found.labels):
        own = np.array([one == label for one in labels])
        np.testing.assert_allclose(found.mean[place], normal[own].mean(0), rtol=1e-6)
        np.testing.assert_allclose(found.share[place], (counts[own] > 0).mean(0))


def test_rare_labels_are_added_up(tmp_path: Path) -> None:
    counts = np.arange(1, 17, dtype=np.float32).reshape(4, 4)
    obs, var = pd.DataFrame(index=list("abcd")), pd.DataFrame(index=list("WXYZ"))
    ad.AnnData(counts, obs=obs, var=var).write_h5ad(tmp_path / "cells.h5ad")
    with open_cells(tmp_path / "cells.h5ad", values="counts") as source:
        found = expression_by_label(source, np.arange(4), ["B", "B", "T", "NK"], most=1)
    assert found.labels == ("B", "others")
    assert found.num_cells.tolist() == [2, 2]
    normal = np.log1p(counts / counts.sum(1, keepdims=True) * 1e4)
    np.testing.assert_allclose(found.mean, [normal[:2].mean(0), normal[2:].mean(0)], rtol=1e-6)


def _expression() -> LabelExpression:
    share = np.array([[0.9, 0.1, 0.5, 0.0], [0.1, 0.8, 0.5, 0.3]])
    return LabelExpression(("B", "T"), ("CD79A", "CD3D", "ACTB", "NKG7"), np.array([10, 5]), 2 * share, share)


def test_markers_tell_their_label_from_the_others() -> None:
    assert markers(_expression(), per_label=2) == {"B": [0], "T": [1, 3]}
    assert markers(_expression(), num_labels=1) == {"B": [0]}


def test_given_markers_are_found_in_any_case(tmp_path: Path) -> None:
    assert places_of({"B": ["cd79a", "MS4A1"], "T": []}, _expression().genes, "m.json") == {"B": [0], "T": []}
    with pytest.raises(InputError, match=r"have none of the genes in m\.json"):
        places_of({"B": ["MS4A1"]}, _expression().genes, "m.json")
    path = tmp_path / "m.json"
    path.write_text('{"B": ["CD79A"]}')
    assert read_markers(path) == {"B": ["CD79A"]}
    for text in ("[1]", '{"B": "CD79A"}', "{"):
        path.write_text(text)
        with pytest.raises(InputError, match="marker genes"):
            read_markers(path)
    with pytest.raises(InputError, match="does not exist"):
        read_markers(tmp_path / "none.json")


def test_confusion_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

    draws = np.random.default_rng(1)
    names = np.array(["B cell", "T cell", "monocyte"])
    known, found = names[draws.integers(0, 3, 60)].tolist(), names[draws.integers(0, 3, 60)].tolist()
    table = confusion(known, found)
    assert table.known == table.found
    order = list(table.known)
    np.testing.assert_array_equal(table.counts, confusion_matrix(known, found, labels=order))
    assert table.accuracy == pytest.approx(accuracy_score(known, found))
    assert table.macro_f1 == pytest.approx(f1_score(known, found, average="macro"))


def test_cells_without_a_label_are_left_out_and_case_is_forgiven() -> None:
    table = confusion(["b Cell", "T", "", "T"], ["B cell", "", "T", "T"])
    assert table.num_cells == 2
    assert table.accuracy == 1.0
    assert np.isnan(confusion([""], ["T"]).accuracy)


def test_many_labels_are_folded_without_losing_cells() -> None:
    known = [f"k{i}" for i in range(9) for _ in range(9 - i)]
    table = confusion(known, known)
    folded = table.folded(4)
    assert folded.known == ("k0", "k1", "k2", "6 others")
    assert folded.counts.shape == (4, 4)
    assert folded.num_cells == table.num_cells
    assert folded.counts[3, 3] == 6 + 5 + 4 + 3 + 2 + 1
