"""Labels and vectors of a LangCell on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from typer.testing import Result

from cellscribe.engine.packaged import packaged_cells

Call = Callable[..., Result]


@pytest.fixture
def cells_file(tmp_path: Path) -> Path:
    """Some of the packaged cells."""
    cells = ad.read_h5ad(packaged_cells())[:8].copy()
    cells.write_h5ad(tmp_path / "blood.h5ad")
    return tmp_path / "blood.h5ad"


OBO = """format-version: 1.2

[Term]
id: CL:0000236
name: B cell
def: "A lymphocyte that makes \\"antibodies\\"." [PMID:1]

[Term]
id: CL:0000576
name: monocyte
def: "A cell of blood." []

[Term]
id: CL:0000001
name: primary cultured cell
is_obsolete: true

[Term]
id: GO:0000001
name: something else

[Typedef]
id: part_of
name: part of
"""


def test_cells_are_labelled_from_an_ontology(
    cellscribe: Call, tiny_langcell: Path, cells_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.obo").write_text(OBO)
    given = ("annotate", cells_file, "--bundle", tiny_langcell, "--labels", tmp_path / "labels.obo")
    told = cellscribe(*given, "--definitions", "-o", tmp_path / "out.h5ad")
    assert told.exit_code == 0, told.stderr
    assert "genes" in told.stderr
    found = ad.read_h5ad(tmp_path / "out.h5ad")
    assert list(found.uns["cellscribe"]["labels"]) == ["B cell", "monocyte"]
    terms = {"B cell": "CL:0000236", "monocyte": "CL:0000576"}
    for label, term in found.obs[["cellscribe_label", "cellscribe_cell_ontology_term_id"]].itertuples(index=False):
        assert term == terms[label]
    np.testing.assert_allclose(found.obsm["cellscribe_label_scores"].sum(1), 1.0, rtol=1e-5)
    plain = cellscribe(*given, "-o", tmp_path / "plain.csv")
    assert plain.exit_code == 0, plain.stderr
    scores = pd.read_csv(tmp_path / "plain.csv")["score of B cell"]
    assert not np.allclose(scores, found.obsm["cellscribe_label_scores"][:, 0], atol=1e-6)


def test_fewer_matches_and_unknown_cells(
    cellscribe: Call, tiny_langcell: Path, cells_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_text("B cell\nT cell\nmonocyte\n")
    given = ("annotate", cells_file, "--bundle", tiny_langcell, "--labels", tmp_path / "labels.txt", "-q")
    tables = {}
    for name, options in {"all": (), "sure": ("--rerank", "sure"), "one": ("--rerank", "1")}.items():
        told = cellscribe(*given, *options, "-o", tmp_path / f"{name}.csv")
        assert told.exit_code == 0, told.stderr
        tables[name] = pd.read_csv(tmp_path / f"{name}.csv")
    assert tables["sure"]["label"].tolist() == tables["all"]["label"].tolist()
    told = cellscribe(*given, "--unknown-below", "1", "-o", tmp_path / "unknown.csv")
    assert told.exit_code == 0, told.stderr
    assert set(pd.read_csv(tmp_path / "unknown.csv")["label"]) == {"unknown"}


def test_vectors(cellscribe: Call, tiny_langcell: Path, cells_file: Path, tmp_path: Path) -> None:
    told = cellscribe("embed", cells_file, "--bundle", tiny_langcell, "-o", tmp_path / "out.h5ad")
    assert told.exit_code == 0, told.stderr
    vectors = ad.read_h5ad(tmp_path / "out.h5ad").obsm["X_cellscribe"]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_a_bundle_says_what_it_is(cellscribe: Call, tiny_langcell: Path) -> None:
    told = cellscribe("inspect", tiny_langcell)
    assert told.exit_code == 0, told.stderr
    for text in ("langcell", "annotate, search, embed", "max_tokens 2048", "text encoder", "probabilities of matching"):
        assert text in " ".join(told.stdout.split())
    told = cellscribe("verify", tiny_langcell)
    assert told.exit_code == 0, told.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "chooses from labels; give --labels"),
        (("--labels", "LABELS", "--rerank", "some"), "choose all, sure"),
        (("--labels", "LABELS", "--alpha", "2"), "alpha is 2"),
        (("--labels", "LABELS", "--definitions"), "'B cell' has none; give it one"),
        (("--labels", "LABELS", "--text-template", "a cell"), "has no {name}"),
        (("--labels", "LABELS", "--unknown-below", "-1"), "the threshold is -1"),
        (("--labels", "LABELS", "--organism", "mouse"), "write sentences, which the bundle"),
        (("--labels", "LABELS", "--scores"), "are for bundles that write labels"),
    ],
)
def test_wrong_wishes_are_one_sentence(
    cellscribe: Call, tiny_langcell: Path, cells_file: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("B cell\nT cell\n")
    given = [labels if one == "LABELS" else one for one in options]
    told = cellscribe("annotate", cells_file, "--bundle", tiny_langcell, "-o", tmp_path / "out.csv", *given)
    assert told.exit_code != 0
    assert said in " ".join(told.stderr.split())
    assert not (tmp_path / "out.csv").exists()


def test_bundles_of_sentences_match_no_texts(cellscribe: Call, cells_file: Path, tmp_path: Path) -> None:
    told = cellscribe(
        "annotate", cells_file, "--bundle", "demo-c2s", "--alpha", "0.5", "-o", tmp_path / "out.csv"
    )  # fmt: skip
    assert told.exit_code != 0
    assert "choose a bundle of the family langcell" in " ".join(told.stderr.split())
