from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from typer.testing import Result

Call = Callable[..., Result]


def _write(path: Path, seed: int, column: str, num_cells: int = 30) -> Path:
    kinds = np.array(["B cell", "T cell"] * (num_cells // 2))
    rate = np.ones((num_cells, 60))
    rate[kinds == "B cell", :20] = rate[kinds != "B cell", 20:40] = 9
    obs = pd.DataFrame({column: kinds}, index=[f"c{i}" for i in range(num_cells)])
    counts = np.random.default_rng(seed).poisson(rate).astype(np.float32)
    ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(60)])).write_h5ad(path)
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return _write(tmp_path / "made.h5ad", 0, "cell_type"), _write(tmp_path / "real.h5ad", 1, "kind")


def test_a_page_figures_and_a_table(cellscribe: Call, files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "markers.json").write_text('{"B cell": ["G1", "G2"]}')
    told = cellscribe(
        "compare", *files, "-o", tmp_path / "out.html", "--json", tmp_path / "out.json", "--label-real", "kind",
        "--markers", tmp_path / "markers.json", "--neighbours", "5, 10", "--max-cells", 24, "--no-map",
    )  # fmt: skip
    assert told.exit_code == 0, told.stderr
    figures = json.loads((tmp_path / "out.json").read_text())
    assert figures["generated"]["num_compared"] == figures["real"]["num_compared"] == 24
    assert figures["generated"]["num_cells"] == 30
    assert list(figures["components"]["pknn"]) == ["5", "10"]
    assert figures["components"]["pknn"]["5"]["all"] > 0.9
    assert figures["markers"]["genes"] == ["G1", "G2"]
    assert figures["map"] is None
    page = (tmp_path / "out.html").read_text()
    assert "24 generated cells against 24 real ones" in page
    for words in ("sKNN", "pKNN", "Mixing", "MMD", "expected"):
        assert words in told.stdout
    said = " ".join(told.stderr.split())
    for words in ("30 cells × 60 genes", "counts from X", "60 genes, in", "out.html", "out.json"):
        assert words in said


def test_quiet_prints_figures_alone(
    cellscribe: Call, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("compare", *files, "-o", tmp_path / "out.html", "--label-real", "kind", "--neighbours", "5", "-q")
    told = cellscribe(*given, "--no-map")
    assert told.exit_code == 0
    assert told.stderr == ""
    assert "MMD" in told.stdout
    monkeypatch.setitem(sys.modules, "umap", None)
    told = cellscribe(*given)
    assert told.exit_code == 0
    assert "note: Maps are left out, as they need umap-learn; install it with" in told.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["-o", "out.pdf"], 2, "end the name in .html"),
        (["-o", "nowhere/out.html"], 3, "does not exist"),
        (["--json", "out.csv"], 2, "end the name in .json"),
        (["--label", "kin"], 3, "no obs column 'kin'"),
        (["--label-real", "cell_type"], 3, "no obs column 'cell_type'"),
        (["--layer", "counts"], 2, "no layer 'counts'"),
        (["--layer-real", "counts"], 2, "no layer 'counts'"),
        (["--input-real", "lognorm", "--log-base-real", "1"], 2, "the base of a logarithm is 1"),
        (["--neighbours", "5;10"], 2, "--neighbours is '5;10'; give whole numbers"),
        (["--neighbours", "0"], 2, "choose some from 1 on"),
        (["--neighbours", "30"], 3, "31 are needed to compare neighbours"),
        (["--markers", "none.json"], 3, "does not exist"),
    ],
)
def test_what_cannot_be_done(
    cellscribe: Call,
    files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    told = cellscribe("compare", *files, "-o", "out.html", "--label-real", "kind", "--no-map", *arguments)
    assert told.exit_code == code
    lines = [line for line in told.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "out.html").exists()


def test_files_that_are_none(cellscribe: Call, files: tuple[Path, Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty.h5ad"
    empty.write_bytes(b"")
    for given in ((empty, files[1]), (files[0], empty), (tmp_path / "none.h5ad", files[1])):
        told = cellscribe("compare", *given, "-o", tmp_path / "out.html", "--label-real", "kind", "-q")
        assert told.exit_code == 3
        assert told.stderr.startswith("error: ")
        assert told.stderr.count("\n") == 1
    told = cellscribe("compare", *files, "-o", tmp_path / "made.h5ad")
    assert told.exit_code == 2
    assert "is the input itself" in told.stderr or "end the name in .html" in told.stderr
