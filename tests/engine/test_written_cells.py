"""Cells made of sentences that a model wrote, some of which failed or were cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import cellscribe as cs
from cellscribe.engine.errors import InputError, UsageError
from cellscribe.engine.sentences import Inverse, SentenceGenes
from cellscribe.engine.text_cells import write_cells
from cellscribe.engine.text_model import TextModel
from cellscribe.engine.text_types import Answer
from cellscribe.engine.written_cells import laid_out, shortfall

GENES, LINE = SentenceGenes.of(["CD3D", "CD74", "CD7"]), Inverse(-0.5, 1.5)


def answer(name: str, text: str, reason: str = "stop") -> Answer:
    status = "failed: the model's output is not finite" if reason == "failed" else "ok"
    return Answer(name, text, (1,), -1.0, reason, status)


def test_failed_cells_are_left_out_and_said() -> None:
    found = (answer("a", "CD3D CD74"), answer("b", "", "failed"), answer("c", "CD74"))
    cells, _ = laid_out(found, GENES, LINE, {}, None, 9)
    assert list(cells.obs_names) == ["a", "c"]
    assert shortfall(found, cells, None) == "1 of 3 cells could not be written: the model's output is not finite."
    assert not shortfall(found[:1], cells, None)
    with pytest.raises(InputError, match=r"none of 2 cells could be written \(the model's output is not finite \(2"):
        laid_out((found[1], found[1]), GENES, LINE, {}, None, 9)


def test_cells_without_a_gene_are_left_out_and_said() -> None:
    found = (answer("a", "CD3D CD74"), answer("b", "foo bar"), answer("c", ""))
    cells, words = laid_out(found, GENES, LINE, {}, None, 9)
    assert list(cells.obs_names) == ["a"]
    assert "status" not in cells.obs
    assert words.endswith("2 sentences have none")
    assert shortfall(found, cells, None) == "Left out, as no word gives them expression: 2 cells."
    found = (answer("a", "CD3D\nfoo\nCD74\nCD7\nCD7"), answer("b", "CD7\nCD74"))
    cells, _ = laid_out(found, GENES, LINE, {}, 5, 9)
    said = "Left out, as no word gives it expression: 1 cell. 6 of 10 cells were written; in 1 sample the model ended"
    assert shortfall(found, cells, 5).startswith(said)


def test_a_word_that_may_be_cut_is_no_gene() -> None:
    found = (answer("a", "CD3D CD7", "length"), answer("b", "CD3D CD7"))
    cells, said = laid_out(found, GENES, LINE, {}, None, 9)
    assert cells.obs["cell_sentence"].tolist() == ["CD3D", "CD3D CD7"]
    assert (cells.X.toarray() > 0).sum(1).tolist() == [1, 2]
    assert cells.obs["finish_reason"].tolist() == ["length", "stop"]
    assert "1 of 2 sentences ended at the limit of tokens and lost their last word" in said


def test_sentences_have_no_more_genes_than_were_asked_for() -> None:
    found = (answer("a", "CD3D CD74 CD7"), answer("b", "CD7"), answer("c", "CD3D CD74 CD7", "length"))
    cells, said = laid_out(found, GENES, LINE, {}, None, 2)
    assert cells.obs["cell_sentence"].tolist() == ["CD3D CD74", "CD7", "CD3D CD74"]
    assert ", 1 sentence cut to the 2 genes that were asked for" in said
    found = (answer("a", "CD3D CD74 CD7\nCD7"),)
    assert laid_out(found, GENES, LINE, {}, 5, 1)[0].obs["cell_sentence"].tolist() == ["CD3D", "CD7"]


def test_a_prompt_beyond_the_context_is_named() -> None:
    model = cs.load("demo-c2s", backend="onnxruntime-cpu", threads=1)
    assert isinstance(model, cs.SentenceModel)
    long, given = "x y " * 600, {"genes": ["CD3D"], "fit": LINE}
    said = r"its prompt of \d+ tokens and \d+ new ones exceed the context of 512; shorten the"
    with pytest.raises(InputError, match=rf"none of 3 cells .*{said} cell type"):
        model.generate(long, 3, **given)
    with pytest.raises(InputError, match=rf"none of 2 samples .*{said} abstract"):
        model.generate(n=2, cells_per_sample=5, abstract=long, **given)


@pytest.mark.parametrize("count", [0, -1, 2.5, True])
def test_how_many_is_a_whole_number(count: Any) -> None:
    model = cs.load("demo-c2s", backend="onnxruntime-cpu", threads=1)
    assert isinstance(model, cs.SentenceModel)
    for cells_per_sample, noun in ((None, "cells"), (5, "samples")):
        with pytest.raises(UsageError, match=f"number of {noun} .-n, n. is {count}; choose a whole number, at least 1"):
            model.generate(n=count, cells_per_sample=cells_per_sample, genes=["CD3D"], fit=LINE)


def test_what_cells_depend_on_is_kept(tmp_path: Path) -> None:
    model = cs.load("demo-c2s", backend="onnxruntime-cpu", threads=1, seed=4)
    assert isinstance(model, cs.SentenceModel)
    genes = packaged_genes()
    cells = model.generate("CD19+ B cell", 1, genes=genes, fit=LINE, temperature=0, max_new_tokens=40)
    kept = cells.uns["cellscribe"]
    assert kept["bundle_hash"] == model.text.bundle.hash
    assert (kept["seed"], kept["task"], kept["template"]) == (4, "conditional_cell_generation", 0)
    assert (kept["sampling"], kept["max_new_tokens"], kept["num_failed"]) == ("greedy", 40, 0)
    assert kept["cell_type"] == "CD19+ B cell"
    assert {"versions", "precision", "backend", "organism", "num_genes"} <= set(kept)
    cells.write_h5ad(tmp_path / "cells.h5ad")


def packaged_genes() -> list[str]:
    """Genes of the packaged cells."""
    from cellscribe.engine.cells import open_cells
    from cellscribe.engine.packaged import packaged_cells

    with open_cells(packaged_cells()) as source:
        return [str(name) for name in source.var_names]


def test_a_long_prompt_leaves_the_others_their_room(c2s_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where templates are drawn, one that is too long fails alone and shortens no other sentence."""
    asked: list[int] = []

    def answers(_: TextModel, names: list[str], texts: list[str], **given: int) -> tuple[Answer, ...]:
        asked.append(given["max_new_tokens"])
        return tuple(answer(name, "CD3D") for name in names)

    model = cs.load(c2s_bundle, backend="onnxruntime-cpu", genes_per_cell=6, threads=1)
    assert isinstance(model, cs.SentenceModel)
    monkeypatch.setattr(TextModel, "answers", answers)
    monkeypatch.setattr(
        "cellscribe.engine.text_cells.fill_task",
        lambda *_: "gene " * (2000 if _[2] == "generated_0" else 3),
    )
    write_cells(model.text, 2, GENES, LINE)
    assert asked == [48]
