"""Answers that the limit of tokens cut off are said to be, and are no labels."""

from __future__ import annotations

from pathlib import Path

import pytest
from instruct_bundles import GoldenInstructCell

import cellscribe as cs
from cellscribe.engine.dialogue_model import DialogueModel
from cellscribe.engine.errors import BackendError


@pytest.fixture(scope="module")
def golden(shared: Path) -> GoldenInstructCell:
    return GoldenInstructCell(shared)


@pytest.fixture(scope="module")
def model(instruct_bundle: Path) -> DialogueModel:
    found = cs.load(instruct_bundle)
    assert isinstance(found, DialogueModel)
    return found


def test_questions_say_why_an_answer_ended(model: DialogueModel, golden: GoldenInstructCell) -> None:
    words = golden.case("annot").instructions[0]
    cut = model.ask(golden.cells(), words, max_new_tokens=2)
    assert set(cut["finish_reason"]) == {"length"}
    assert model.notice == "4 of 4 answers were cut off at 2 tokens; allow more (--max-new-tokens, max_new_tokens)."
    model.ask(golden.cells(), words, max_new_tokens=1)
    assert "were cut off at 1 token; allow more" in model.notice
    assert set(model.ask(golden.cells(), words)["finish_reason"]) == {"stop"}
    assert model.notice == ""


def test_what_is_cut_off_is_no_label(model: DialogueModel, golden: GoldenInstructCell) -> None:
    case, cells = golden.case("annot"), golden.cells()
    free = model.annotate(cells[[0]].copy(), instruction=case.instructions[0], max_new_tokens=2)
    assert free["label"].tolist() == [""]
    assert "cut off by the limit of tokens; allow more" in free["status"].iloc[0]
    listed = model.annotate(cells[[0]].copy(), labels=golden.labels, max_new_tokens=2)  # labels have room of their own
    assert listed["status"].tolist() == ["ok"]
    row = next(i for i, text in enumerate(case.texts) if text.startswith("The cell type is"))
    length = len(model.bundle.tokenizer.encode(case.texts[row].split(" based")[0], add_special_tokens=False).ids)
    found = {
        more: model.annotate(
            cells[[row]].copy(), labels=golden.labels, instruction=case.instructions[row], in_words=True,
            max_new_tokens=length + more,
        )["label"].iloc[0]
        for more in (0, 8)
    }  # fmt: skip
    assert found[0] == ""  # it may go on, as in "T Cell precursor"
    assert found[8] in case.texts[row]
    assert found[8]


def test_a_cell_needs_all_its_words(model: DialogueModel, golden: GoldenInstructCell) -> None:
    with pytest.raises(BackendError, match="words were cut off at 3 tokens, before a cell could follow; allow more"):
        model.generate(instruction=golden.case("cpcg").instructions[0], n=2, max_new_tokens=3)
