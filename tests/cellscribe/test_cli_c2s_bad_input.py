"""What users get wrong with bundles that read sentences: one sentence, the code of the house, nothing half-written."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from typer.testing import Result

Call = Callable[..., Result]


def write_cells(path: Path, counts: np.ndarray, names: list[str] | None = None) -> None:
    cells = ad.AnnData(np.asarray(counts, np.float32))
    cells.obs_names = [f"cell-{i}" for i in range(cells.n_obs)]
    cells.var_names = names or [f"GENE{i}" for i in range(cells.n_vars)]
    cells.obs["kind"] = pd.Categorical(["a"] * cells.n_obs)
    cells.write_h5ad(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files, most of them wrong."""
    monkeypatch.chdir(tmp_path)
    counts = 1 + np.random.default_rng(0).poisson(1.0, (6, 12))
    write_cells(Path("ok.h5ad"), counts)
    write_cells(Path("silent.h5ad"), 0 * counts)
    write_cells(Path("negative.h5ad"), counts - 3.0)
    write_cells(Path("alike.h5ad"), counts, ["CD3D", "cd3d", *(f"G{i}" for i in range(10))])
    write_cells(Path("spaces.h5ad"), counts, ["Cd 3", *(f"G{i}" for i in range(11))])
    write_cells(Path("none.h5ad"), counts[:0])
    write_cells(Path("long.h5ad"), np.ones((3, 900)))
    Path("noise.h5ad").write_bytes(b"noise")
    Path("empty").mkdir()
    template = {"prompts": ["{cell_sentence}"], "answer": "{cell_type}"}
    for name, prompts in (("unknown", ["{cell_sentence} {x}"]), ("odd", ["{cell_sentence"]), ("bare", ["What is it?"])):
        Path(f"{name}.json").write_text(json.dumps({"cell_type_prediction": template | {"prompts": prompts}}))
    Path("list.json").write_text("[1]")
    texts = {
        "labels.txt": "B cell\nT cell\n", "case.txt": "B cell\nb cell\n",
        "space.txt": "B cell\nB\tCL:0000236\nB  cell\n",
        "nothing.txt": "", "huge.txt": "B cell\n" + "very " * 2000, "genes.tsv": "gene\nGENE1\nGENE2\n",
        "same.tsv": "A\na\n",
        "fit.json": '{"slope": -0.5, "intercept": 1.5}', "nan.json": '{"slope": NaN, "intercept": 1}',
        "rising.json": '{"slope": 0.5, "intercept": -3}',
        "s.txt": "GENE1 GENE2\n",
        "two_tabs.tsv": "c\tGENE1\tGENE2\n", "unnamed.tsv": "\tGENE1\n", "double.tsv": "c\tGENE1\nc\tGENE2\n",
        "words.txt": "foo bar\n",
    }  # fmt: skip
    for name, text in texts.items():
        Path(name).write_text(text)
    for name in ("latin.txt", "latin.json", "latin.tsv"):
        Path(name).write_bytes(b"caf\xe9\n")
    pd.DataFrame({"x": [1]}).to_parquet("no_column.parquet")
    pd.DataFrame({"cell_sentence": [None, "GENE1"]}).to_parquet("no_text.parquet")
    pd.DataFrame({"cell_sentence": ["GENE1"], "cell_name": [None]}).to_parquet("no_name.parquet")
    Path("noise.parquet").write_bytes(b"noise")
    return tmp_path


LABEL, GENERATE, INVERSE = (
    "annotate {} --bundle BUNDLE -o out.h5ad --labels {}",
    "generate --bundle BUNDLE -o out.h5ad",
    "c2s inverse {} -o out.h5ad --fit {} --genes {}",
)
CASES: list[tuple[str, int, str]] = [
    *((LABEL.format(name, "labels.txt"), 3, said) for name, said in (
        ("negative.h5ad", "values below zero"), ("alike.h5ad", "twice in upper case (CD3D and cd3d)"),
        ("spaces.h5ad", "'Cd 3', which cannot be one word"), ("none.h5ad", "has 0 cells"),
        ("noise.h5ad", "not an HDF5 file"),
        ("nowhere.h5ad", "no file nowhere.h5ad"),
    )),
    *((LABEL.format("ok.h5ad", name), code, said) for name, code, said in (
        ("case.txt", 3, "'B cell' and 'b cell' differ in case or spaces alone"),
        ("space.txt", 3, "in case or spaces alone"),
        ("nothing.txt", 3, "holds no labels"), ("latin.txt", 3, "cannot be read as labels"),
        ("huge.txt", 2, "tokens, and the context of neox holds 1024"),
    )),
    ("annotate ok.h5ad --bundle demo -o out.h5ad", 3, "reads no sentences"),
    ("annotate ok.h5ad --bundle empty -o out.h5ad", 3, "has no manifest.json"),
    ("annotate ok.h5ad --bundle BUNDLE -o empty", 2, "no ending that is understood"),
    ("annotate ok.h5ad --bundle BUNDLE -o ok.h5ad", 2, "is the input itself"),
    ("annotate ok.h5ad --bundle BUNDLE -o out.h5ad --max-new-tokens 5000", 2, "max_new_tokens is 5000, and the"),
    *((f"annotate ok.h5ad --bundle BUNDLE -o out.h5ad --templates {name}.json", 3, said) for name, said in (
        ("unknown", "names {x}; known are"), ("odd", "has odd braces"), ("bare", "lacks {cell_sentence}"),
        ("list", "holds no tasks"), ("latin", "no readable JSON"),
    )),
    ("embed ok.h5ad --bundle BUNDLE -o out.h5ad --templates unknown.json", 3, "names {x}; known are"),
    ("embed negative.h5ad --bundle BUNDLE -o out.h5ad", 3, "values below zero"),
    ("ask ok.h5ad '' --bundle BUNDLE", 2, "the question is empty"),
    ("ask ok.h5ad '{' --bundle BUNDLE", 2, "odd braces"),
    ("ask ok.h5ad '{tissue}' --bundle BUNDLE", 2, "needs a value for {tissue}"),
    ("ask ok.h5ad 'Why?' --bundle BUNDLE --set tissue=blood", 2, "'tissue', which the prompt has no place for"),
    ("ask ok.h5ad --bundle BUNDLE --task tissue_prediction", 2, "is about groups of cells; add --by"),
    ("ask ok.h5ad --bundle BUNDLE --task cell_type_prediction --by kind", 2, "is not about groups of cells"),
    ("ask ok.h5ad --bundle BUNDLE --task tissue_prediction --by kinds", 3, "no obs column 'kinds'"),
    ("ask ok.h5ad 'Why?' --bundle BUNDLE -o nowhere/a.csv", 3, "does not exist"),
    (f"{GENERATE} --like ok.h5ad --cell-type ' '", 2, "the cell type is empty"),
    (f"{GENERATE} --like ok.h5ad --fit fit.json", 2, "needs genes and a line"),
    (f"{GENERATE} --genes genes.tsv", 2, "needs genes and a line"),
    (f"{GENERATE} --genes same.tsv --fit fit.json", 3, "twice in upper case"),
    (f"{GENERATE} --genes genes.tsv --fit nan.json", 3, "not finite"),
    (f"{GENERATE} --genes nothing.txt --fit fit.json", 3, "names no gene"),
    (f"{GENERATE} --like silent.h5ad", 3, "no cell of silent.h5ad expresses a gene"),
    (f"{GENERATE} --like ok.h5ad -n 1000000000000", 2, "(-n, n) is 1,000,000,000,000; choose at most 10,000,000"),
    (f"{GENERATE} --like ok.h5ad --temperature -1", 2, "temperature is -1"),
    (f"{GENERATE} --like ok.h5ad --seed -1", 2, "seed is -1"),
    (f"{GENERATE} --like ok.h5ad -n 10000001", 2, "(-n, n) is 10,000,001; choose at most 10,000,000 for one call"),
    (
        f"{GENERATE} --like ok.h5ad --max-new-tokens 1000000", 2,
        "max_new_tokens is 1,000,000, and the context of neox leaves 9",
    ),
    (f"{GENERATE} --like ok.h5ad --genes-per-cell 100000", 2, "100,000 genes are asked for at once, and the"),
    (
        f"{GENERATE} --like ok.h5ad --genes-per-cell 500 --cells-per-sample 10", 2,
        "5,000 genes are asked for at once, and the context of",
    ),
    ("generate --bundle demo -o out.h5ad --like ok.h5ad", 3, "reads no sentences"),
    ("c2s transform silent.h5ad -o out", 3, "expresses no gene"),
    ("c2s transform negative.h5ad -o out", 3, "values below zero"),
    ("c2s transform ok.h5ad -o empty", 3, "exists already"),
    ("c2s transform ok.h5ad -o nowhere/out", 3, "does not exist"),
    *((INVERSE.format(name, "fit.json", "genes.tsv"), 3, said) for name, said in (
        ("two_tabs.tsv", "is not a name, a tab and a sentence"),
        ("unnamed.tsv", "line 1 of unnamed.tsv names no cell"),
        ("double.tsv", "names two cells alike"), ("words.txt", "no word of 1 sentence is"),
        ("nothing.txt", "holds no sentence"),
        ("latin.txt", "give UTF-8"), ("genes.csv", "no ending that is understood"),
        ("no_column.parquet", "has no column"),
        ("no_text.parquet", "holds what is no text"), ("no_name.parquet", "leaves a cell without a name"),
        ("noise.parquet", "no readable Parquet"), ("nowhere.txt", "does not exist"),
    )),
    (INVERSE.format("s.txt", "nan.json", "genes.tsv"), 3, "not finite"),
    (INVERSE.format("s.txt", "rising.json", "genes.tsv"), 3, "rising.json: the line through ranks has the slope 0.5"),
    (INVERSE.format("s.txt", "list.json", "genes.tsv"), 3, "has no slope and intercept"),
    (INVERSE.format("s.txt", "latin.json", "genes.tsv"), 3, "has no slope and intercept"),
    (INVERSE.format("s.txt", "fit.json", "latin.tsv"), 3, "give UTF-8"),
    ("export nowhere out --family c2s", 3, "is not a folder"),
    ("export empty out --family c2s", 3, "tokenizer.json is missing"),
    ("export empty empty --family c2s", 3, "exists already"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "code", "said"), CASES)
def test_one_sentence_and_nothing_written(
    cellscribe: Call, c2s_bundle: Path, folder: Path, line: str, code: int, said: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    told = cellscribe(*(c2s_bundle if one == "BUNDLE" else one for one in shlex.split(line)))
    assert told.exit_code == code, told.stderr
    errors = [one for one in told.stderr.splitlines() if one.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]
    assert "unexpected" not in errors[0]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_what_fails_for_every_cell_is_said_in_few_words(cellscribe: Call, c2s_bundle: Path, folder: Path) -> None:
    cells = 1 + np.random.default_rng(0).poisson(1.0, (40, 60))
    write_cells(folder / "many.h5ad", np.triu(cells, -20))
    given = ("--bundle", c2s_bundle, "-o", folder / "out.csv", "--max-new-tokens", 1000)
    told = cellscribe("annotate", folder / "many.h5ad", *given)
    assert told.exit_code == 4
    assert "of 40 cells could not be annotated" in " ".join(told.stderr.split())
    said = " ".join(told.stderr.split())
    assert re.search(r"annotated: its prompt of \d+ to \d+ tokens and 1000 new ones exceed the context of 1024;", said)
    assert said.endswith("or shorter texts (cell-0, cell-1, cell-2 and 37 more).")
    assert pd.read_csv(folder / "out.csv")["status"].str.contains("exceed the context of 1024").all()
    told = cellscribe("annotate", folder / "silent.h5ad", "--bundle", c2s_bundle, "-o", folder / "out.csv")
    assert told.exit_code == 4
    assert "6 of 6 cells could not be annotated: no gene is expressed in it" in " ".join(told.stderr.split())
