"""Cells made of sentences that a model wrote, some of which failed or were cut."""

from __future__ import annotations

from pathlib import Path

import pytest

import cellscribe as cs
from cellscribe.engine.errors import InputError
from cellscribe.engine.sentences import Inverse, SentenceGenes
from cellscribe.engine.text_groups import write_cells
from cellscribe.engine.text_model import TextModel
from cellscribe.engine.text_types import Answer
from cellscribe.engine.written_cells import cells_of_answers, failure_sentence

GENES, LINE = SentenceGenes.of(["CD3D", "CD74", "CD7"]), Inverse(-0.5, 1.5)


def answer(name: str, text: str, reason: str = "stop") -> Answer:
    status = "failed: the model's output is not finite" if reason == "failed" else "ok"
    return Answer(name, text, (1,), -1.0, reason, status)


def test_failed_cells_are_left_out_and_said() -> None:
    found = (answer("a", "CD3D CD74"), answer("b", "", "failed"), answer("c", "CD74"))
    cells, _ = cells_of_answers(found, GENES, LINE)
    assert list(cells.obs_names) == ["a", "c"]
    assert failure_sentence(found) == "1 of 3 cells could not be written: the model's output is not finite."
    assert not failure_sentence(found[:1])
    with pytest.raises(InputError, match=r"none of 2 cells could be written \(the model's output is not finite \(2"):
        cells_of_answers((found[1], found[1]), GENES, LINE)


def test_a_word_that_may_be_cut_is_no_gene() -> None:
    cells, said = cells_of_answers((answer("a", "CD3D CD7", "length"), answer("b", "CD3D CD7")), GENES, LINE)
    assert cells.obs["cell_sentence"].tolist() == ["CD3D", "CD3D CD7"]
    assert (cells.X.toarray() > 0).sum(1).tolist() == [1, 2]
    assert cells.obs["finish_reason"].tolist() == ["length", "stop"]
    assert "1 of 2 sentences ended at the limit of tokens and lost their last word" in said


def test_a_prompt_beyond_the_context_is_named() -> None:
    model = cs.load("demo-c2s", backend="onnxruntime-cpu", threads=1)
    assert isinstance(model, cs.SentenceModel)
    with pytest.raises(InputError, match=r"none of 3 cells .*its prompt of \d+ tokens .* exceed the context of 512"):
        model.generate("x y " * 600, 3, genes=["CD3D"], fit=LINE)


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
        "cellscribe.engine.text_groups.fill_task",
        lambda *_: "gene " * (2000 if _[2] == "generated_0" else 3),
    )
    write_cells(model.text, 2, GENES, LINE)
    assert asked == [48]
