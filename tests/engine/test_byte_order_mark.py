"""Text files of users may begin with a byte order mark, which is no part of what they say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cellscribe.engine.cells.hvg import read_gene_list
from cellscribe.engine.cells.limits import ReadLimits
from cellscribe.engine.cells.text_file import TextFile
from cellscribe.engine.labelling.markers import read_markers
from cellscribe.engine.sentences.inverse import Inverse
from cellscribe.engine.sentences.read import read_genes, read_sentences
from cellscribe.engine.sentences.templates import read_templates

TEMPLATES = {"cell_type_prediction": {"prompts": ["{cell_sentence}"], "answer": "{cell_type}"}}


def lines(path: Path) -> list[str]:
    with TextFile(path, "cells", ReadLimits()) as text:
        return text.lines()


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("genes.tsv", "gene\tname\nCD3D\tCd3d\nCD4\tCd4\n", lambda path: read_genes(path).names),
        ("genes.txt", "CD3D\nCD4\n", lambda path: read_genes(path).names),
        ("said.txt", "CD3D CD4\nCD4\n", read_sentences),
        ("said.tsv", "c0\tCD3D CD4\nc1\tCD4\n", read_sentences),
        ("fit.json", '{"slope": -0.5, "intercept": 1.9}', Inverse.read),
        ("templates.json", json.dumps(TEMPLATES), read_templates),
        ("list.txt", "CD3D\nCD4\n", read_gene_list),
        ("markers.json", '{"B cell": ["CD79A"]}', read_markers),
        ("barcodes.tsv", "AAAC-1\nAAAG-1\n", lines),
    ],
)
def test_it_is_left_out(tmp_path: Path, name: str, text: str, read: Callable[[Path], Any]) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    plain = read(tmp_path / name)
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert read(tmp_path / name) == plain
