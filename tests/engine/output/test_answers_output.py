"""What a model said of cells in its own words, in every kind of file, where some cells have no answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from cellscribe.engine.labels import Labelled, Labels
from cellscribe.engine.output.files import write_run
from cellscribe.engine.output.run import Run

SAID = ("It is a B cell.", "", "A T cell, I think.")  # of the cells 4, 1 (which failed) and 6 of seven
READ = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".jsonl": lambda path: pd.read_json(path, lines=True)}


@pytest.fixture
def answered(run: Run) -> Run:
    score = np.array([0.5, np.nan, 0.25], np.float32)
    return replace(run, labels=Labelled(Labels(("B", "T"), ("", "")), ("B", "", "T"), score, answers=SAID))


def test_cells_without_an_answer_have_an_empty_one(answered: Run, cells_file: Path, tmp_path: Path) -> None:
    write_run(answered, tmp_path / "out.h5ad", cells_file)
    obs = ad.read_h5ad(tmp_path / "out.h5ad").obs
    assert obs["cellscribe_answer"].tolist() == ["", "", "", "", SAID[0], "", SAID[2]]
    assert obs["cellscribe_label"].isna().tolist() == [True] * 4 + [False, True, False]


@pytest.mark.parametrize("suffix", READ)
def test_tables_have_a_row_for_every_answer(answered: Run, cells_file: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    write_run(answered, out, cells_file)
    assert READ[suffix](out)["answer"].fillna("").tolist() == list(SAID)
