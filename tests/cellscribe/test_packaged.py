"""The packaged bundle over the packaged cells, as a new user meets them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import cellscribe as cs
from cellscribe.engine.packaged import packaged_bundle, packaged_cells
from cellscribe.engine.verify import verify_bundle

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks/results/demo_heldout.json"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cellscribe", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100", **environment},
        check=False,
    )


@pytest.fixture(scope="module")
def described() -> tuple[ad.AnnData, pd.DataFrame]:
    cells = ad.read_h5ad(packaged_cells())
    return cells, cs.load("demo").describe(cells)


def test_the_packaged_bundle_does_here_what_torch_did() -> None:
    report = verify_bundle(str(packaged_bundle()))
    assert report.passed, report.lines()


def test_the_package_stays_small() -> None:
    files = [p for p in packaged_bundle().parent.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 12e6


def test_a_store_is_read_by_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("zarr", minversion="3")
    cells = ad.read_h5ad(packaged_cells())[:6].copy()
    cells.write_h5ad(tmp_path / "cells.h5ad")
    cells.write_zarr(tmp_path / "cells.zarr")
    for name in ("h5ad", "zarr"):
        done = run("embed", str(tmp_path / f"cells.{name}"), "-o", str(tmp_path / f"{name}.parquet"), "--quiet")
        assert (done.returncode, done.stderr) == (0, "")
    one, two = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("h5ad", "zarr"))
    pd.testing.assert_frame_equal(one, two)


def test_demo_prints_cells_texts_and_genes() -> None:
    done = run("demo", "--limit", "2")
    assert done.returncode == 0, done.stderr
    cells = ad.read_h5ad(packaged_cells())
    for name in cells.obs_names[:2]:
        assert name in done.stdout
    assert "%" in done.stdout
    assert "Traceback" not in done.stderr


def test_the_shown_cells_are_of_different_types() -> None:
    assert ad.read_h5ad(packaged_cells()).obs["cell_type_reference"].iloc[:6].nunique() == 6


def test_every_held_out_cell_gets_a_whole_text(described: tuple[ad.AnnData, pd.DataFrame]) -> None:
    _, frame = described
    assert (frame["status"] == "ok").all()
    assert (frame["finish_reason"] == "stop").mean() > 0.95
    assert frame["description"].str.contains("peripheral blood").mean() > 0.95


def test_the_figures_of_the_front_page_are_those_of_the_bundle(described: tuple[ad.AnnData, pd.DataFrame]) -> None:
    cells, frame = described
    stored = json.loads(RESULTS.read_text())
    names = stored["type_names"]
    named = [
        max((t for t in names if names[t] in text), key=lambda t: len(names[t]), default=None)
        for text in frame["description"]
    ]
    accuracy = float(np.mean(np.array(named) == cells.obs["cell_type_reference"].astype(str).to_numpy()))
    three = float(np.mean([len(genes) >= 3 for genes in frame["named_genes"]]))
    assert accuracy == pytest.approx(stored["type_accuracy"], abs=0.015)
    assert three == pytest.approx(stored["share_naming_3_of_top_10"], abs=0.015)
    assert stored["bundle_hash"] == cs.load("demo").bundle.hash
    page = (ROOT / "README.md").read_text()
    for figure in (stored["type_accuracy"], stored["logistic_regression_accuracy"], stored["share_naming_3_of_top_10"]):
        assert f"{figure:.1%}".replace("%", " %") in page


@pytest.mark.parametrize(("name", "column"), [("zheng68k.h5ad", "celltype"), ("scp1884.h5ad", "Celltype")])
def test_other_files_are_described_and_their_genes_reported(
    shared: Path, tmp_path: Path, name: str, column: str
) -> None:
    out = tmp_path / "out.h5ad"
    done = run(
        "describe", str(shared / "data" / name), "-o", str(out), "--limit", "12", "--report", str(tmp_path / "r.html")
    )
    assert done.returncode in (0, 4), done.stderr
    assert re.search(r"\d+ of the bundle's [\d,]+ are there", " ".join(done.stderr.split()))
    found, given = ad.read_h5ad(out), ad.read_h5ad(shared / "data" / name)
    assert (found.obs["cellscribe_status"][12:] == "not run").all()
    assert found.obs["cellscribe_description"][:12].str.len().max() > 20
    assert (found.X != given.X).nnz == 0
    assert found.obs[column].equals(given.obs[column])
    assert found.uns["cellscribe"]["fingerprint"]
    assert "<html" in (tmp_path / "r.html").read_text()


def test_pools_name_types(tmp_path: Path) -> None:
    out = tmp_path / "pools.jsonl"
    done = run("describe", str(packaged_cells()), "--pool", "cell_type_reference", "-o", str(out))
    assert done.returncode == 0, done.stderr
    pools = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(pools) == ad.read_h5ad(packaged_cells()).obs["cell_type_reference"].nunique()
    assert all(p["description"] for p in pools)
