from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from typer.testing import Result

Call = Callable[..., Result]


def test_without_output_the_descriptions_go_to_stdout(cellscribe: Call, model: Any, cells_file: Path) -> None:
    result = cellscribe("describe", cells_file)
    assert result.exit_code == 0
    assert result.stdout.count("A cell of blood with GENE1.") == 5
    assert "━━━" in result.stdout
    assert "50.0 %" in result.stdout
    assert "CPU, a fake of 2 threads" in result.stderr
    assert "raw counts from X" in result.stderr
    assert "10 of 12 genes matched (83 %)." in result.stderr
    assert "tokens/s" in result.stderr


def test_quiet_prints_results_alone(cellscribe: Call, model: Any, cells_file: Path) -> None:
    result = cellscribe("describe", cells_file, "--quiet")
    assert result.stderr == ""
    assert "cell-3" in result.stdout


@pytest.mark.parametrize("suffix", ["h5ad", "parquet", "jsonl", "csv"])
def test_output_is_written_and_stdout_stays_empty(
    cellscribe: Call, model: Any, cells_file: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"out.{suffix}"
    result = cellscribe("describe", cells_file, "-o", out)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert f"wrote {out}" in result.stderr
    assert out.stat().st_size > 0


def test_an_h5ad_output_of_a_store_is_refused(cellscribe: Call, model: Any, cells_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("zarr", minversion="3")
    ad.read_h5ad(cells_file).write_zarr(tmp_path / "cells.zarr")
    refused = cellscribe("describe", tmp_path / "cells.zarr", "-o", tmp_path / "out.h5ad")
    assert refused.exit_code == 2
    assert "cells.zarr is none; end the output's name in .parquet, .jsonl or .csv." in refused.stderr
    assert not model.calls


def test_options_reach_the_model(cellscribe: Call, model: Any, cells_file: Path) -> None:
    arguments = [
        "--sampling",
        "top-p",
        "--top-p",
        "0.5",
        "--seed",
        "3",
        "--max-new-tokens",
        "40",
        "--batch-size",
        "2",
        "--top-genes",
        "4",
    ]
    assert cellscribe("describe", cells_file, *arguments).exit_code == 0
    (call,) = model.calls
    assert (call["sampling"].top_p, call["sampling"].temperature, call["sampling"].seed) == (0.5, 0.7, 3)
    assert (call["max_new_tokens"], call["batch_size"], call["top_genes"]) == (40, 2, 4)


def test_chosen_cells_and_the_rest(cellscribe: Call, model: Any, cells_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.h5ad"
    cellscribe("describe", cells_file, "-o", out, "--cell-id", "cell-3", "--cell-id", "cell-0", "--key-added", "my")
    after = ad.read_h5ad(out)
    assert list(after.obs["my_status"]) == ["ok", "not run", "not run", "ok", "not run"]


def test_pools(cellscribe: Call, model: Any, cells_file: Path, tmp_path: Path) -> None:
    result = cellscribe("describe", cells_file, "-o", tmp_path / "out.jsonl", "--pool", "kind")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["kind"], row["num_cells"]) for row in rows] == [("a", 2), ("b", 3)]
    assert "2 pools in" in result.stderr


def test_report_and_attention(cellscribe: Call, model: Any, cells_file: Path, tmp_path: Path) -> None:
    result = cellscribe(
        "describe", cells_file, "-q", "--report", tmp_path / "r.html", "--save-attn", tmp_path / "a.npz", "--limit", 2
    )
    assert result.exit_code == 0
    assert "<mark>GENE1</mark>" in (tmp_path / "r.html").read_text()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert list(archive["cell_ids"]) == ["cell-0", "cell-1"]


def test_stream_prints_pieces_in_a_pipe(cellscribe: Call, model: Any, cells_file: Path) -> None:
    result = cellscribe("describe", cells_file, "--stream", "--limit", 2)
    assert result.stdout == "".join(
        f"cell-{row}\n A cell of blood with GENE1.\ntop genes: GENE1 50.0 %, GENE2 25.0 %\n\n" for row in range(2)
    )
    assert model.calls[0]["batch_size"] == 1


def test_failed_cells_are_counted_and_exit_4(cellscribe: Call, model: Any, cells_file: Path, tmp_path: Path) -> None:
    model.failing = ("cell-2",)
    result = cellscribe("describe", cells_file, "-o", tmp_path / "out.csv", "--quiet")
    assert result.exit_code == 4
    assert result.stderr == "1 of 5 cells could not be described: all counts are zero (cell-2).\n"
    assert (tmp_path / "out.csv").exists()


def test_embed_writes_vectors(cellscribe: Call, model: Any, cells_file: Path, tmp_path: Path) -> None:
    result = cellscribe("embed", cells_file, "-o", tmp_path / "out.h5ad", "--bundle", "any")
    assert result.exit_code == 0
    assert ad.read_h5ad(tmp_path / "out.h5ad").obsm["X_cellscribe"].shape == (5, 4)


def test_demo_shows_cells_and_where_to_go_next(cellscribe: Call, model: Any) -> None:
    result = cellscribe("demo", "--limit", 2)
    assert result.exit_code == 0
    assert result.stdout.count("A cell of blood") == 2
    assert "cellscribe describe CELLS.h5ad -o OUT.h5ad" in result.stderr


def test_doctor_says_values_genes_and_time(cellscribe: Call, model: Any, cells_file: Path) -> None:
    result = cellscribe("doctor", cells_file)
    assert result.exit_code == 0
    for words in ("raw counts from X", "10 of 12 genes matched", "CPUExecutionProvider", "GB free of", "for all cells"):
        assert words in result.stdout


def test_doctor_without_a_bundle_still_looks_at_the_machine(cellscribe: Call, model: Any) -> None:
    result = cellscribe("doctor", "--bundle", "missing")
    assert result.exit_code == 0
    assert "processor" in result.stdout
    assert "note: missing is not a folder" in result.stdout
