"""Cells found by text on the command line, and what is made of labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from typer.testing import Result

import cellscribe as cs
from cellscribe.engine.packaged import packaged_cells

Call = Callable[..., Result]


@pytest.fixture
def cells_file(tmp_path: Path) -> Path:
    """Some of the packaged cells."""
    cells = ad.read_h5ad(packaged_cells())[:8].copy()
    cells.obs["kind"] = ["B cell", "T cell"] * 4
    cells.write_h5ad(tmp_path / "blood.h5ad")
    return tmp_path / "blood.h5ad"


@pytest.fixture
def index(cellscribe: Call, tiny_langcell: Path, cells_file: Path, tmp_path: Path) -> Path:
    told = cellscribe("index", cells_file, "--bundle", tiny_langcell, "-o", tmp_path / "index", "--columns", "kind")
    assert told.exit_code == 0, told.stderr
    assert "8 cells" in told.stderr
    return tmp_path / "index"


def test_cells_are_found_by_text(
    cellscribe: Call, index: Path, tiny_langcell: Path, cells_file: Path, tmp_path: Path
) -> None:
    told = cellscribe("search", "a B cell of blood", "--index", index, "-k", 3, "-o", tmp_path / "found.csv")
    assert told.exit_code == 0, told.stderr
    found = pd.read_csv(tmp_path / "found.csv")
    assert found["query"].unique().tolist() == ["a B cell of blood"]
    assert found["score"].is_monotonic_decreasing
    model = cs.load(tiny_langcell)
    vectors, text = model.embed(ad.read_h5ad(cells_file), copy=True), model.embed_texts(["a B cell of blood"])
    order = np.argsort(-(vectors @ text[0]), kind="stable")[:3]
    assert found["cell_id"].tolist() == ad.read_h5ad(cells_file).obs_names[order].tolist()
    again = model.search(cs.open_index(index), ["a B cell of blood"], 3)
    assert again["cell_id"].tolist() == found["cell_id"].tolist()
    shown = cellscribe("search", "a B cell of blood", "--index", index, "-k", 3, "-q")
    assert all(name in shown.stdout for name in found["cell_id"])


def test_texts_by_cell_likeness_and_recall(cellscribe: Call, index: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("B cell\nT cell\nmonocyte\n")
    name = cs.open_index(index).cells["cell_id"][0]
    told = cellscribe("search", "--index", index, "--cell", name, "--texts", tmp_path / "texts.txt", "-q")
    assert told.exit_code == 0, told.stderr
    assert all(text in told.stdout for text in ("B cell", "T cell", "monocyte"))
    like = cellscribe("search", "--index", index, "--cell", name, "-k", 2, "-o", tmp_path / "like.jsonl")
    assert like.exit_code == 0, like.stderr
    assert name not in pd.read_json(tmp_path / "like.jsonl", lines=True)["cell_id"].tolist()
    told = cellscribe("search", "--index", index, "--texts", tmp_path / "texts.txt", "--truth", "kind", "-k", 1, "-q")
    assert told.exit_code == 0, told.stderr
    shown = " ".join(told.stdout.split())
    assert "R@1 R@5 R@10" in shown
    assert "cells by text (2 texts)" in shown
    assert "texts by cell (8 cells)" in shown
    assert "100.0 %" in shown  # three texts, so that all are among the five nearest


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "there is nothing to search for"),
        (("  ",), "a text is empty"),
        (("text", "--cell", "x"), "a text is searched by itself"),
        (("text", "--truth", "kind"), "are for --texts LIST"),
        (("--cell", "nobody"), "has no cell 'nobody'"),
        (("text", "-o", "out.txt"), "end the name in .csv, .parquet or .jsonl"),
        (("text", "--bundle", "demo"), "is not the one that the index"),
        (("--texts", "TEXTS", "--truth", "none"), "keeps no column 'none'"),
    ],
)
def test_wrong_searches_are_one_sentence(
    cellscribe: Call, index: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    (tmp_path / "texts.txt").write_text("B cell\n")
    given = [str(tmp_path / "texts.txt") if one == "TEXTS" else one for one in options]
    told = cellscribe("search", "--index", index, *given)
    assert told.exit_code in (2, 3)
    assert said in " ".join(told.stderr.split())


def test_labels_get_votes_and_a_report(cellscribe: Call, tiny_langcell: Path, cells_file: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("B cell\nT cell\n")
    told = cellscribe(
        "annotate", cells_file, "--bundle", tiny_langcell, "--labels", tmp_path / "labels.txt", "--majority-vote",
        "kind", "--report", tmp_path / "report.html", "--truth", "kind", "-o", tmp_path / "out.h5ad",
    )  # fmt: skip
    assert told.exit_code == 0, told.stderr
    obs = ad.read_h5ad(tmp_path / "out.h5ad").obs
    for _, group in obs.groupby("kind", observed=True):
        assert group["cellscribe_majority_voting"].nunique() == 1
        assert group["cellscribe_majority_voting"].iloc[0] in group["cellscribe_label"].mode().tolist()
    assert obs["cellscribe_over_clustering"].tolist() == obs["kind"].tolist()
    html = (tmp_path / "report.html").read_text()
    for text in ("8 cells labelled", "Known labels (kind)", "Clusters and labels", "Genes of the labels"):
        assert text in html


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--truth", "kind"), "are shown in the report"),
        (("--majority-vote", "leiden"), "has no obs column 'leiden'"),
        (("--min-share", "0.5"), "is of clusters"),
        (("--report", "out.txt"), "end the name in .html"),
    ],
)
def test_wrong_finishes_are_one_sentence(
    cellscribe: Call, tiny_langcell: Path, cells_file: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    (tmp_path / "labels.txt").write_text("B cell\nT cell\n")
    told = cellscribe(
        "annotate", cells_file, "--bundle", tiny_langcell, "--labels", tmp_path / "labels.txt", "-o",
        tmp_path / "out.csv", *options,
    )  # fmt: skip
    assert told.exit_code in (2, 3)
    assert said in " ".join(told.stderr.split())
    assert not (tmp_path / "out.csv").exists()


def test_labels_are_kept_when_what_comes_after_them_fails(
    cellscribe: Call, tiny_langcell: Path, cells_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cellscribe.engine.labelling.finish as finish
    from cellscribe.engine.errors import OutputError

    def full(*_: object) -> None:
        raise OutputError("the disk is full; free some space.")

    monkeypatch.setattr(finish, "write_label_report", full)
    (tmp_path / "labels.txt").write_text("B cell\nT cell\n")
    told = cellscribe(
        "annotate", cells_file, "--bundle", tiny_langcell, "--labels", tmp_path / "labels.txt", "--report",
        tmp_path / "report.html", "-o", tmp_path / "out.csv",
    )  # fmt: skip
    assert told.exit_code == 3
    assert "the disk is full" in told.stderr
    assert len(pd.read_csv(tmp_path / "out.csv")) == 8


def test_genes_that_the_cells_lack_are_found_before_any_label(
    cellscribe: Call, tiny_langcell: Path, cells_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_text("B cell\nT cell\n")
    (tmp_path / "genes.json").write_text('{"B cell": ["nothing"]}')
    told = cellscribe(
        "annotate", cells_file, "--bundle", tiny_langcell, "--labels", tmp_path / "labels.txt", "--markers",
        tmp_path / "genes.json", "--report", tmp_path / "report.html", "-o", tmp_path / "out.csv",
    )  # fmt: skip
    assert told.exit_code == 3
    assert "none of the genes" in " ".join(told.stderr.split())
    assert not (tmp_path / "out.csv").exists()
