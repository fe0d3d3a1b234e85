from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from typer.testing import Result

Call = Callable[..., Result]


def test_cells_go_to_sentences_and_back(cellscribe: Call, cells_file: Path, tmp_path: Path) -> None:
    out, back = tmp_path / "out", tmp_path / "back.h5ad"
    told = cellscribe("c2s", "transform", cells_file, "-o", out, "--columns", "kind", "--no-plot")
    assert told.exit_code == 0, told.stderr
    assert "5 sentences in" in told.stderr
    assert "R2" in told.stdout
    assert {one.name for one in out.iterdir()} == {
        "sentences.tsv", "sentences.parquet", "arrow", "genes.tsv", "fit.json",
    }  # fmt: skip
    for name in ("sentences.tsv", "sentences.parquet"):
        options = ("--fit", out / "fit.json", "--genes", out / "genes.tsv")
        told = cellscribe("c2s", "inverse", out / name, "-o", back, *options)
        assert told.exit_code == 0, told.stderr
        assert "0 of" in told.stderr
        cells, before = ad.read_h5ad(back), ad.read_h5ad(cells_file)
        assert list(cells.obs_names) == list(before.obs_names)
        # The order of genes comes back: no gene lies above one with more counts.
        for mine, theirs in zip(cells.X.toarray(), before.X, strict=True):
            order = np.argsort(-mine, kind="stable")[: (mine > 0).sum()]
            assert (np.diff(theirs[order]) <= 0).all()
        back.unlink()


def test_the_picture(cellscribe: Call, cells_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the bench extra is not installed")
    assert cellscribe("c2s", "transform", cells_file, "-o", tmp_path / "out", "-q").exit_code == 0
    assert (tmp_path / "out" / "fit.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_drawn_is_said(
    cellscribe: Call, cells_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for option, is_said in (("--plot", True), ("--no-plot", False)):
        told = cellscribe("c2s", "transform", cells_file, "-o", tmp_path / option, option)
        assert told.exit_code == 0, told.stderr
        assert ("note: fit.png is not drawn, as matplotlib is not installed" in told.stderr) == is_said
        assert not (tmp_path / option / "fit.png").exists()


def test_the_same_key_gives_the_same_sentences(cellscribe: Call, cells_file: Path, tmp_path: Path) -> None:
    texts = []
    for i, seed in enumerate((0, 0, 1)):
        told = cellscribe("c2s", "transform", cells_file, "-o", tmp_path / f"{i}", "--seed", seed, "--no-plot", "-q")
        assert told.exit_code == 0
        assert told.stdout == told.stderr == ""
        texts.append((tmp_path / f"{i}" / "sentences.tsv").read_text())
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--formats", "csv"], 2, "'csv' is no format"),
        (["--formats", ","], 2, "choose from text, parquet, arrow"),
        (["--columns", "nothing"], 3, "no obs column 'nothing'"),
        (["--min-genes", "13"], 3, "expresses 13 genes; choose a smaller --min-genes."),
        (["--min-cells", "6"], 3, "is expressed by 6 of the 5 cells kept; choose a smaller --min-cells."),
        (["--layer", "nothing"], 2, "no layer 'nothing'"),
    ],
)
def test_what_cannot_be_done_leaves_nothing(
    cellscribe: Call, cells_file: Path, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    told = cellscribe("c2s", "transform", cells_file, "-o", tmp_path / "out", *arguments)
    assert told.exit_code == code
    assert said in " ".join(told.stderr.split())
    assert {one.name for one in tmp_path.iterdir()} == {"cells.h5ad"}


def test_columns_are_named_together_or_one_by_one(cellscribe: Call, cells_file: Path, tmp_path: Path) -> None:
    cells = ad.read_h5ad(cells_file)
    cells.obs["a"], cells.obs["b"] = 1, 2
    cells.write_h5ad(tmp_path / "more.h5ad")
    for i, columns in enumerate((("--columns", "a", "--columns", "kind,b"), ("--columns", "a,kind,b"))):
        told = cellscribe("c2s", "transform", tmp_path / "more.h5ad", "-o", tmp_path / f"{i}", "--no-plot", *columns)
        assert told.exit_code == 0, told.stderr
        assert list(pd.read_parquet(tmp_path / f"{i}" / "sentences.parquet"))[3:] == ["a", "kind", "b"]


def test_names_that_a_line_cannot_hold_are_said(cellscribe: Call, cells_file: Path, tmp_path: Path) -> None:
    cells = ad.read_h5ad(cells_file)
    cells.obs_names = ["a\tb", *cells.obs_names[1:]]
    cells.write_h5ad(tmp_path / "tabs.h5ad")
    for formats, is_said in (("text,parquet", True), ("parquet", False)):
        out = tmp_path / formats
        told = cellscribe("c2s", "transform", tmp_path / "tabs.h5ad", "-o", out, "--no-plot", "--formats", formats)
        assert told.exit_code == 0, told.stderr
        assert ("the names of 1 cell have tabs" in " ".join(told.stderr.split())) == is_said
        assert pd.read_parquet(out / "sentences.parquet")["cell_name"].iloc[0] == "a\tb"
    assert (tmp_path / "text,parquet" / "sentences.tsv").read_text().startswith("a b\t")


def test_names_that_are_no_symbols_are_said_and_many_refused(
    cellscribe: Call, cells_file: Path, tmp_path: Path
) -> None:
    given = ("-o", tmp_path / "few", "--no-plot")
    told = cellscribe("c2s", "transform", cells_file, *given)
    assert "Only 0 of 12 names are known gene symbols (unknown: GENE0), so sentences" in " ".join(told.stderr.split())
    counts = np.random.default_rng(0).poisson(1.0, (3, 150)).astype(np.float32)
    cells = ad.AnnData(counts, var=pd.DataFrame(index=[f"ENSG{i:011}" for i in range(150)]))
    cells.write_h5ad(tmp_path / "ids.h5ad")
    given = ("c2s", "transform", tmp_path / "ids.h5ad", "-o", tmp_path / "out", "--no-plot")
    told = cellscribe(*given)
    assert told.exit_code == 3
    assert "none of the 150 gene names of ids.h5ad is a known symbol" in " ".join(told.stderr.split())
    assert not (tmp_path / "out").exists()
    assert cellscribe(*given, "--organism", "zebrafish").exit_code == 0


def test_sentences_without_a_gene_are_named(cellscribe: Call, tmp_path: Path) -> None:
    (tmp_path / "fit.json").write_text(json.dumps({"slope": -0.5, "intercept": 1.5}))
    (tmp_path / "genes.tsv").write_text("CD3D\nCD74\nLYZ\n")
    (tmp_path / "s.txt").write_text("CD3D CD3D foo bar\nxyz abc\n\nCD74 LYZ\n")
    given = ("c2s", "inverse", tmp_path / "s.txt", "-o", tmp_path / "out.h5ad", "-q")
    told = cellscribe(*given, "--fit", tmp_path / "fit.json", "--genes", tmp_path / "genes.tsv")
    assert told.exit_code == 4
    said = " ".join(told.stderr.split())
    assert said.startswith("2 of 4 cells are all zeros (status of obs): none of its words is a gene (cell_1);")
    found = ad.read_h5ad(tmp_path / "out.h5ad")
    assert [one == "ok" for one in found.obs["status"]] == [True, False, False, True]
    assert (found.X.sum(1) > 0).ravel().tolist()[0] == [True, False, False, True]


def test_what_is_there_is_not_written_over(cellscribe: Call, cells_file: Path, tmp_path: Path) -> None:
    told = cellscribe("c2s", "transform", cells_file, "-o", tmp_path)
    assert told.exit_code == 3
    assert "exists already" in told.stderr
    (tmp_path / "fit.json").write_text(json.dumps({"slope": -1, "intercept": 1}))
    (tmp_path / "genes.tsv").write_text("GENE1\n")
    (tmp_path / "s.txt").write_text("nothing of it\n")
    options = ("--fit", tmp_path / "fit.json", "--genes", tmp_path / "genes.tsv")
    told = cellscribe("c2s", "inverse", tmp_path / "s.txt", "-o", tmp_path / "out.h5ad", *options)
    assert told.exit_code == 3
    assert "no word of 1 sentence is" in told.stderr
    assert not (tmp_path / "out.h5ad").exists()
