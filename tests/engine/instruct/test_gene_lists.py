from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cellscribe.engine.errors import InputError
from cellscribe.engine.instruct.gene_lists import packaged_genes, read_genes


def test_packaged_genes_are_the_published_ones(shared: Path) -> None:
    listed = json.loads((shared / "fixtures" / "data" / "instructcell" / "gene_vocab.json").read_text())
    assert list(packaged_genes()) == listed


def test_lists_of_all_kinds_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("CD19\nCD3E\n\n")
    (tmp_path / "a.tsv").write_text("CD19\tENSG1\nCD3E\tENSG2\n")
    (tmp_path / "a.csv").write_text('CD19,0\n"CD3E",1\n')
    (tmp_path / "a.json").write_text('["CD19", "CD3E"]')
    np.save(tmp_path / "a.npy", np.array(["CD19", "CD3E"]))
    (tmp_path / "mark.txt").write_text("CD19\nCD3E\n", encoding="utf-8-sig")
    (tmp_path / "header.csv").write_text("Gene,place\nCD19,0\nCD3E,1\n")
    np.save(tmp_path / "bytes.npy", np.array([b"CD19", b"CD3E"]))
    for name in ("a.txt", "a.tsv", "a.csv", "a.json", "a.npy", "mark.txt", "header.csv", "bytes.npy"):
        assert read_genes(tmp_path / name) == ("CD19", "CD3E")


def test_bad_lists_are_one_sentence(tmp_path: Path) -> None:
    np.save(tmp_path / "pickled.npy", np.array(["CD19", None], dtype=object))
    (tmp_path / "twice.txt").write_text("CD19\nCD19\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "index.csv").write_text("0,ENO1\n1,CD19\n")
    np.save(tmp_path / "numbers.npy", np.array([0.0, 1.0]))
    (tmp_path / "odd.json").write_text('{"CD19": 1}')
    for name, message in (
        ("pickled.npy", r"holds objects, which may be code; save it with numpy\.save"),
        ("twice.txt", "names the gene CD19 twice"),
        ("empty.txt", "is no list of genes"),
        ("odd.json", "is no list of genes"),
        ("index.csv", "names '0', a number, where a gene belongs; write symbols, in the first column"),
        ("numbers.npy", "holds float64 and no texts"),
        ("none.txt", "does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            read_genes(tmp_path / name)
