from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from typer.testing import Result

Call = Callable[..., Result]


@pytest.fixture
def bundle(c2s_bundle: Path) -> Path:
    """A golden checkpoint of random weights."""
    return c2s_bundle


def test_cells_are_labelled_from_a_list(cellscribe: Call, bundle: Path, cells_file: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.tsv").write_text("B cell\tCL:0000236\nT cell\tCL:0000084\nmonocyte\n")
    for name in ("out.h5ad", "out.parquet", "out.csv", "out.jsonl"):
        told = cellscribe(
            "annotate", cells_file, "--bundle", bundle, "--labels", tmp_path / "labels.tsv", "-o", tmp_path / name
        )
        assert told.exit_code == 0, told.stderr
    found = ad.read_h5ad(tmp_path / "out.h5ad")
    assert set(found.obs["cellscribe_label"]) <= {"B cell", "T cell", "monocyte"}
    assert found.obs["cellscribe_score"].between(0, 1).all()
    assert set(found.obs["cellscribe_status"]) == {"ok"}
    assert list(found.uns["cellscribe"]["labels"]) == ["B cell", "T cell", "monocyte"]
    terms = {"B cell": "CL:0000236", "T cell": "CL:0000084", "monocyte": None}
    for label, term in found.obs[["cellscribe_label", "cellscribe_cell_ontology_term_id"]].itertuples(index=False):
        assert (None if pd.isna(term) else term) == terms[label]
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert table["label"].tolist() == found.obs["cellscribe_label"].tolist()


def test_all_labels_are_scored(cellscribe: Call, bundle: Path, cells_file: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("B cell\nT cell\nT cell, naive\nmonocyte\n")
    given = ("annotate", cells_file, "--bundle", bundle, "--labels", tmp_path / "labels.txt", "--scores")
    for name in ("out.h5ad", "out.csv"):
        told = cellscribe(*given, "-o", tmp_path / name)
        assert told.exit_code == 0, told.stderr
    found = ad.read_h5ad(tmp_path / "out.h5ad")
    names, scores = list(found.uns["cellscribe"]["labels"]), found.obsm["cellscribe_label_scores"]
    assert scores.shape == (found.n_obs, 4)
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-4)
    falling = np.argsort(-scores, axis=1)
    assert [names[i] for i in falling[:, 0]] == found.obs["cellscribe_label"].tolist()
    assert [names[i] for i in falling[:, 1]] == found.obs["cellscribe_runner_up"].tolist()
    first, second = (np.take_along_axis(scores, falling[:, [at]], 1)[:, 0] for at in (0, 1))
    np.testing.assert_allclose(found.obs["cellscribe_score"], first, rtol=1e-5)
    np.testing.assert_allclose(found.obs["cellscribe_margin"], first - second, atol=1e-6)
    table = pd.read_csv(tmp_path / "out.csv")
    np.testing.assert_allclose(table["score of T cell, naive"], scores[:, 2], atol=1e-6)
    assert table["runner_up"].tolist() == found.obs["cellscribe_runner_up"].tolist()


def test_free_answers(cellscribe: Call, bundle: Path, cells_file: Path, tmp_path: Path) -> None:
    told = cellscribe("annotate", cells_file, "--bundle", bundle, "-o", tmp_path / "o.parquet", "--max-new-tokens", 4)
    assert told.exit_code == 0, told.stderr
    assert len(pd.read_parquet(tmp_path / "o.parquet")) == 5


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--labels", "{folder}/nothing.txt"], 3, "does not exist"),
        (["--scores"], 2, "need a list of them; give --labels"),
        (["--template", "9"], 2, "prompts 0 to 2"),
        (["--template", "x"], 2, "from 0 on, or draw"),
        (["--templates", "{folder}/nothing.json"], 3, "does not exist"),
        (["--bundle", "demo"], 3, "reads no sentences"),
        (["--backend", "cuda"], 3, "its kernels are those of LingoCell"),
    ],
)
def test_what_cannot_be_done(
    cellscribe: Call, bundle: Path, cells_file: Path, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    given = [one.format(folder=tmp_path) for one in arguments]
    told = cellscribe("annotate", cells_file, "--bundle", bundle, "-o", tmp_path / "out.h5ad", *given)
    assert told.exit_code == code
    assert said in " ".join(told.stderr.split())
    assert not (tmp_path / "out.h5ad").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("annotate", "--scores"), "need a list of them; give --labels"),
        (("annotate", "--template", "9"), "prompts 0 to 2"),
        (("ask", "--task", "cell_types"), "the task 'cell_types' is not known"),
        (("ask", "--task", "tissue_prediction"), "is about groups of cells; add --by"),
        (("ask", "Why?", "--set", "tissue=blood"), "'tissue', which the prompt has no place for"),
    ],
)
def test_options_are_checked_before_cells_and_weights(
    cellscribe: Call,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.setattr("cellscribe.engine.text_bundle.choose_backend", lambda *_, **__: pytest.fail("opened"))
    command, *more = arguments
    told = cellscribe(command, tmp_path / "none.h5ad", *more, "--bundle", bundle, "-o", tmp_path / "x.csv")
    assert told.exit_code == 2
    assert said in " ".join(told.stderr.split())


def test_the_bundle_is_inspected(cellscribe: Call, bundle: Path) -> None:
    told = cellscribe("inspect", bundle)
    assert told.exit_code == 0
    for words in ("c2s", "annotate, generate, ask, embed", "num_genes 200", "greedy tokens equal"):
        assert words in " ".join(told.stdout.split())


def test_the_bundle_is_verified(cellscribe: Call, bundle: Path) -> None:
    told = cellscribe("verify", bundle)
    assert told.exit_code == 0, told.stderr
    assert "4 prompts (sentences of" in " ".join(told.stdout.split())
