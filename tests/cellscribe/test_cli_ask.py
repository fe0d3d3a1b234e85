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


def test_answers_go_to_the_terminal_or_a_file(cellscribe: Call, bundle: Path, cells_file: Path, tmp_path: Path) -> None:
    given = ("--bundle", bundle, "--max-new-tokens", 3, "--limit", 2)
    told = cellscribe("ask", cells_file, "Is it dividing?", *given)
    assert told.exit_code == 0, told.stderr
    assert [line.split("\t")[0] for line in told.stdout.splitlines()] == ["cell-0", "cell-1"]
    assert "0 of 12 names are known gene symbols (unknown: GENE0)" in " ".join(told.stderr.split())
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        told = cellscribe("ask", cells_file, "Is it dividing?", *given, "-o", tmp_path / name)
        assert told.exit_code == 0, told.stderr
        assert told.stdout == ""
    table = pd.read_csv(tmp_path / "a.csv")
    assert table["name"].tolist() == ["cell-0", "cell-1"]
    assert pd.read_parquet(tmp_path / "a.parquet")["status"].tolist() == ["ok", "ok"]
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 2


def test_answers_from_a_list_and_answers_that_are_drawn(
    cellscribe: Call, bundle: Path, cells_file: Path, tmp_path: Path
) -> None:
    given = ("ask", cells_file, "Is it dividing?", "--bundle", bundle, "--max-new-tokens", 4, "-q")
    (tmp_path / "labels.txt").write_text("yes\nno\n")
    told = cellscribe(*given, "--labels", tmp_path / "labels.txt")
    assert told.exit_code == 0, told.stderr
    assert {line.split("\t")[1] for line in told.stdout.splitlines()} <= {"yes", "no"}
    greedy, drawn, again, other = (
        cellscribe(*given, *more).stdout
        for more in ((), *(("--temperature", 5, "--top-p", 1, "--seed", seed) for seed in (1, 1, 2)))
    )
    assert drawn == again
    assert len({greedy, drawn, other}) == 3
    assert "top_p is 2" in " ".join(cellscribe(*given, "--temperature", 1, "--top-p", 2).stderr.split())
    refused = cellscribe(*given, "--top-p", 0)  # checked where nothing is drawn, too
    assert refused.exit_code == 2
    assert "top_p is 0" in " ".join(refused.stderr.split())
    assert cellscribe(*given, "--labels", tmp_path / "none.txt").exit_code == 3


def test_a_task_in_place_of_a_question(cellscribe: Call, bundle: Path, cells_file: Path) -> None:
    told = cellscribe(
        "ask", cells_file, "--bundle", bundle, "--task", "cell_type_prediction", "--max-new-tokens", 2, "-q"
    )
    assert told.exit_code == 0, told.stderr
    assert len(told.stdout.splitlines()) == 5


def test_a_task_about_no_cells_needs_none(cellscribe: Call, bundle: Path) -> None:
    given = ("--bundle", bundle, "--max-new-tokens", 2, "-q")
    told = cellscribe("ask", "-", *given, "--task", "gene_set_name", "--set", "genes=CD3D CD3E")
    assert told.exit_code == 0, told.stderr
    assert [line.split("\t")[0] for line in told.stdout.splitlines()] == ["gene_set_name"]
    told = cellscribe("ask", "-", "Why?", *given)
    assert told.exit_code == 2
    assert "none are given" in " ".join(told.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["Why?", "--bundle", ""], 2, "no bundle is named"),
        (
            ["--bundle", "{bundle}", "--task", "cell_generation", "--limit", "3"],
            2,
            "the task cell_generation is about no cells and is answered once; give - in place of",
        ),
        (["--bundle", "{bundle}"], 2, "a question or --task"),
        (["Why?", "--bundle", "{bundle}", "--task", "x"], 2, "a question or --task"),
        (["Why?", "--bundle", "{bundle}", "--by", "kind"], 2, "needs a task"),
        (["Why?", "--bundle", "{bundle}", "--set", "tissue"], 2, "write it as name=text"),
        (["--bundle", "{bundle}", "--task", "x"], 2, "the task 'x' is not known"),
        (["--bundle", "{bundle}", "--task", "tissue_prediction", "--by", "kind"], 3, "has 2 cells"),
        (["Why?", "--bundle", "{bundle}", "-o", "{folder}/a.txt"], 2, "no ending that is understood"),
    ],
)
def test_what_cannot_be_asked(
    cellscribe: Call, bundle: Path, cells_file: Path, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    given = [one.format(bundle=bundle, folder=tmp_path) for one in arguments]
    told = cellscribe("ask", cells_file, *given)
    assert told.exit_code == code, told.stderr
    assert said in " ".join(told.stderr.split())


def test_cells_that_fail_are_no_answers(cellscribe: Call, bundle: Path, tmp_path: Path) -> None:
    counts = np.zeros((6, 12), np.float32)
    counts[0] = np.arange(12)
    cells = ad.AnnData(counts, pd.DataFrame(index=[f"c{i}" for i in range(6)]))
    cells.var_names = [f"GENE{i}" for i in range(12)]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    told = cellscribe("ask", tmp_path / "cells.h5ad", "Why?", "--bundle", bundle, "--max-new-tokens", 2)
    assert told.exit_code == 4
    said = " ".join(told.stderr.split())
    assert "1 answer in" in said
    assert "note: 5 of 6 failed: no gene is expressed in it (c1, c2, c3 and 2 more)" in said


def test_generate_wants_genes_and_a_line(cellscribe: Call, bundle: Path, cells_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.h5ad"
    told = cellscribe("generate", "--bundle", bundle, "-o", out)
    assert told.exit_code == 2
    assert "either --like CELLS, or" in " ".join(told.stderr.split())
    told = cellscribe("generate", "--bundle", bundle, "-o", out, "--like", cells_file, "-n", 2, "--max-new-tokens", 3)
    assert told.exit_code in (0, 3, 4)  # random weights seldom write the name of a gene
    assert told.exit_code != 3 or "no word of 2 sentences" in " ".join(told.stderr.split())
    assert out.exists() == (told.exit_code != 3)
    told = cellscribe("generate", "--bundle", bundle, "-o", tmp_path / "out.csv", "--like", cells_file)
    assert told.exit_code == 2
