"""Names that are gene symbols, and names that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from anndata import AnnData, read_h5ad

import cellscribe as cs
from cellscribe.engine.cells import open_cells
from cellscribe.engine.doctor import examine
from cellscribe.engine.errors import InputError
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.sentences import SentenceGenes
from cellscribe.engine.sentences.known import KnownNames, gene_report, known_names
from cellscribe.engine.text_model import TextModel


@pytest.fixture
def cells() -> AnnData:
    return read_h5ad(packaged_cells())[:3].copy()


@pytest.fixture(scope="module")
def model() -> cs.SentenceModel:
    found = cs.load("demo-c2s", backend="onnxruntime-cpu", threads=1)
    assert isinstance(found, cs.SentenceModel)
    return found


def test_symbols_of_man_and_mouse_old_ones_too() -> None:
    found = known_names(SentenceGenes.of(["CD3D", "Cd74", "C1orf112", "SEPT7", "XYZ_1"]))
    assert (found.known, found.total, found.unknown) == (4, 5, "XYZ_1")
    assert found.sentence() == "4 of 5 names are known gene symbols."
    assert KnownNames(1, 9, "X").warning.startswith("Only 1 of 9 names are known gene symbols (unknown: X), so answers")


def test_less_than_half_is_said() -> None:
    assert not KnownNames(50, 100, "X").warning
    assert KnownNames(49, 100, "X").warning.startswith("Only 49 of 100 names are known gene symbols")


def test_words_are_made_and_counted_once_a_source(cells: AnnData) -> None:
    with open_cells(cells) as source, open_cells(cells) as other:
        words = SentenceGenes.of_cells(source)
        assert SentenceGenes.of_cells(source) is words
        assert SentenceGenes.of_cells(other) == words
        assert known_names(words) is known_names(words)


def test_few_names_are_let_pass() -> None:
    KnownNames(0, 40, "G0").check("the file")
    with pytest.raises(InputError, match=r"9,621 gene names of the file is a known symbol \(unknown: XYZ"):
        KnownNames(0, 9621, "XYZ_0").check("the file")


def test_the_packaged_cells_are_known(cells: AnnData, model: cs.SentenceModel) -> None:
    model.annotate(cells, ["B cell", "monocyte"])
    report = cells.uns["cellscribe"]["gene_report"]
    assert report["n_names"] == cells.n_vars
    assert report["n_known"] > 0.9 * cells.n_vars
    assert not KnownNames(report["n_known"], report["n_names"]).warning


def test_cells_without_a_known_gene_are_refused(cells: AnnData, model: cs.SentenceModel, tmp_path: Path) -> None:
    cells.var_names = [f"XYZ_{i}" for i in range(cells.n_vars)]
    with pytest.raises(InputError, match="is a known symbol"):
        model.annotate(cells, ["B cell", "monocyte"])
    with pytest.raises(InputError, match="is a known symbol"):
        model.embed(cells)
    with pytest.raises(InputError, match="is a known symbol"):
        model.ask(cells, "Is it dividing?")
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(InputError, match="is a known symbol"):
        examine(tmp_path / "cells.h5ad", "demo-c2s", backend="onnxruntime-cpu", threads=1)
    with open_cells(cells) as source:
        assert gene_report(source, "zebrafish") == {}


def test_no_cell_is_written_of_genes_that_are_unknown(
    cells: AnnData, model: cs.SentenceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(*_: object, **__: object) -> None:
        raise AssertionError("the model ran")

    monkeypatch.setattr(TextModel, "answers", answers)
    cells.var_names = [f"XYZ_{i}" for i in range(cells.n_vars)]
    for more in ({}, {"cells_per_sample": 5}):
        with pytest.raises(InputError, match=r"gene names of --like or --genes \(like, genes\) is a known symbol"):
            model.generate(like=cells, n=2, **more)


def test_hardly_any_known_gene_is_said(cells: AnnData, model: cs.SentenceModel) -> None:
    cells.var_names = [*cells.var_names[:5], *(f"XYZ_{i}" for i in range(5, cells.n_vars))]
    model.embed(cells)
    model.ask(cells[:1].copy(), "Is it dividing?", max_new_tokens=1)
    assert model.notice.startswith("Only ")
    said = cells.uns["cellscribe_embedding"]["gene_report"]["sentence"]
    assert said.startswith("Only ")
    assert said.endswith("(unknown: XYZ_5), so answers may mean nothing; check the gene names.")
