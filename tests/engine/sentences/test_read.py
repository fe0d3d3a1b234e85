"""Files of sentences and genes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cellscribe.engine.errors import InputError
from cellscribe.engine.sentences import Inverse, SentenceGenes
from cellscribe.engine.sentences.read import cells_of, empty_note, inverted, read_genes, read_sentences

GENES = SentenceGenes.of(["a", "b", "c"])
LINE = Inverse(-1.0, 1.0)


def test_the_three_kinds_of_files(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("a b\nc\n")
    (tmp_path / "s.tsv").write_text("one\ta b\r\ntwo\tc\r\n")
    frame = pd.DataFrame({"cell_name": ["one", "two"], "cell_sentence": ["a b", "c"]})
    frame.to_parquet(tmp_path / "s.parquet")
    assert read_sentences(tmp_path / "s.txt") == (["cell_0", "cell_1"], ["a b", "c"])
    assert read_sentences(tmp_path / "s.tsv") == (["one", "two"], ["a b", "c"])
    assert read_sentences(tmp_path / "s.parquet") == (["one", "two"], ["a b", "c"])


def test_cells_are_made_of_them(tmp_path: Path) -> None:
    path = tmp_path / "s.tsv"
    path.write_text("one\tb x a b\ntwo\tnothing here\n")
    cells, said = inverted(path, GENES, LINE)
    assert list(cells.obs_names) == ["one", "two"]
    assert list(cells.var_names) == ["a", "b", "c"]
    assert cells.obs["num_genes"].tolist() == [2, 0]
    assert cells.obs["num_not_genes"].tolist() == [1, 2]
    wanted = 1 - np.log10(1 + np.array([[2.0, 1.0, 9.0], [9.0, 9.0, 9.0]]))  # X B A after the two mentions of B met
    wanted[[0, 1, 1, 1], [2, 0, 1, 2]] = 0
    np.testing.assert_allclose(cells.X.toarray(), wanted, atol=1e-6)
    assert cells.obs["num_repeats"].tolist() == [1, 0]
    assert said == "3 of 6 words are no genes, 1 repeat was merged, 1 sentence has none"
    assert cells.obs["status"].tolist() == ["ok", "failed: none of its words is a gene"]
    note = empty_note(cells)
    assert note == "1 of 2 cells is all zeros (status of obs): none of its words is a gene (two)."
    assert empty_note(cells[:1]) == ""


def test_blank_lines_are_empty_cells(tmp_path: Path) -> None:
    path = tmp_path / "s.txt"
    path.write_text("a b\n\nc\n  \n")
    cells, said = inverted(path, GENES, LINE)
    assert list(cells.obs_names) == ["cell_0", "cell_1", "cell_2", "cell_3"]
    assert cells.obs["num_genes"].tolist() == [2, 0, 1, 0]
    assert cells.obs["num_not_genes"].tolist() == cells.obs["num_repeats"].tolist() == [0] * 4
    assert cells.X[[1, 3]].nnz == 0
    assert said == "0 of 3 words are no genes, 2 sentences have none"
    assert empty_note(cells).endswith("are all zeros (status of obs): the sentence is empty (cell_1, cell_3).")
    path.write_bytes(b"a b\r\n\r\nc")
    assert read_sentences(path)[1] == ["a b", "", "c"]


def test_genes_beyond_the_line_give_no_cell() -> None:
    cells = cells_of(["one", "two"], [" ".join(["x"] * 10) + " a", "a"], GENES, LINE)[0]
    assert cells.X.sum(1).ravel().tolist()[0] == [0.0, 1.0]
    assert cells.obs["status"].tolist() == ["failed: its genes stand at ranks for which the line gives nothing", "ok"]


def test_a_line_is_named_by_its_place_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "s.tsv"
    path.write_text("one\ta\n\n\nno tab\n")
    with pytest.raises(InputError, match="line 4 of"):
        read_sentences(path)
    path.write_text("one\ta\n\ntwo\t\n")
    assert read_sentences(path) == (["one", "two"], ["a", ""])


def test_genes_of_c2s_transform_and_of_a_plain_list(tmp_path: Path) -> None:
    path = tmp_path / "genes.tsv"
    for text in ("gene\tnum_cells\nA\t3\nB\t0\n", "a\nb\n"):
        path.write_text(text)
        assert read_genes(path).words == ("A", "B")
    path.write_text("gene\tnum_cells\tname\nC1ORF159\t3\tC1orf159\nB\t0\tB\n")
    assert read_genes(path).words == ("C1ORF159", "B")
    assert read_genes(path).names == ("C1orf159", "B")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("s.csv", "a", "no ending that is understood"),
        ("s.txt", " \n", "holds no sentence"),
        ("s.tsv", "one\ta\nno tab\n", "line 2 of"),
        ("s.tsv", "one\ta\none\tb\n", "two cells alike"),
        ("s.parquet", "no parquet", "no readable Parquet"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_sentences(path)


def test_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_sentences(tmp_path / "s.txt")
    (tmp_path / "s.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        read_sentences(tmp_path / "s.txt")
    (tmp_path / "genes.tsv").write_text("gene\tnum_cells\n")
    with pytest.raises(InputError, match="names no gene"):
        read_genes(tmp_path / "genes.tsv")
    pd.DataFrame({"other": ["a"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has no column cell_sentence"):
        read_sentences(tmp_path / "a.parquet")
    pd.DataFrame({"text": ["a", None]}).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(InputError, match="holds what is no text"):
        read_sentences(tmp_path / "b.parquet")
    with pytest.raises(InputError, match="no word of 1 sentence is"):
        cells_of(["one"], ["x y"], GENES, LINE)
