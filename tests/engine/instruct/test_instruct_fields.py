"""Values that instructions are given: refused where nothing names them, so that no answer or cell claims them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import scipy.sparse as sp
from instruct_bundles import GoldenInstructCell

import cellscribe as cs
from cellscribe.engine.dialogue_model import DialogueModel
from cellscribe.engine.errors import UsageError
from cellscribe.engine.instruct.templates import ANNOTATION, SENSITIVITY
from cellscribe.engine.instruct.writing import CellOrder, _instructions, _laid_out
from cellscribe.engine.text_types import Answer


@pytest.fixture(scope="module")
def golden(shared: Path) -> GoldenInstructCell:
    return GoldenInstructCell(shared)


@pytest.fixture(scope="module")
def model(instruct_bundle: Path) -> DialogueModel:
    found = cs.load(instruct_bundle)
    assert isinstance(found, DialogueModel)
    return found


def test_values_that_nothing_names_are_refused(model: DialogueModel, golden: GoldenInstructCell) -> None:
    cells, own = golden.cells(), golden.case("cpcg").instructions[0]
    tissue, method = {"tissue": "liver"}, {"sequencing_method": "Smart-seq2"}
    for wrong, message in (
        (lambda: model.generate("B Cell", instruction=own), r"does not name \{cell_type\}"),
        (lambda: model.generate("T Cell", fields=tissue | method), r"_method\}, .* do need \{species\}, too"),
        (lambda: model.generate("T Cell", fields={"drug": "JQ1"}), r"no instruction of .* names \{drug\}"),
        (lambda: model.generate("T Cell", fields={"cell_type": "B Cell"}), "as 'T Cell' and as 'B Cell'; give it once"),
        (lambda: model.annotate(cells, fields={"cell_type": "T Cell"}), r"no instruction of .* names \{cell_type\}"),
        (lambda: model.ask(cells, task=ANNOTATION, fields=method), r"do need \{species\} and \{tissue\}, too"),
        (lambda: model.ask(cells, task=SENSITIVITY, fields={"drug": ""}), "the value of drug is empty"),
        (lambda: model.ask(cells, task=ANNOTATION, fields={"cell": "x"}), "the field 'cell' is not known"),
        (lambda: model.ask(cells, task=ANNOTATION, fields={"tissue": None}), "tissue is None, which is no text"),
    ):
        with pytest.raises(UsageError, match=message):
            wrong()
    second = DialogueModel(model.bundle, template=2)
    with pytest.raises(UsageError, match=r"does not name \{species\}, .* and choose another one"):
        second.ask(cells, task=ANNOTATION, fields={"tissue": "liver", "species": "human"})


def test_labels_that_are_looked_for_in_words_are_choices(model: DialogueModel, golden: GoldenInstructCell) -> None:
    cell = golden.cells()[[0]].copy()
    asked: dict[str, Any] = {"instruction": "Which of {choices} is it?", "in_words": True}
    found = model.annotate(cell, labels=golden.labels, **asked)
    assert cell.uns["cellscribe"]["in_words"]
    assert not cell.uns["cellscribe"]["scores"]
    told = model.ask(cell, f"Which of {', '.join(golden.labels)} is it?")
    assert found["answer"].tolist() == told["answer"].tolist()


@pytest.mark.parametrize("odd", ["</s>", "<CELL1>", "<CELL0>", "<extra_id_3>"])
def test_tokens_that_are_no_words_are_refused(model: DialogueModel, golden: GoldenInstructCell, odd: str) -> None:
    if odd not in model.instruct.prompts.cell.odd:
        pytest.skip(f"the tokenizer has no {odd}")
    for wrong in (
        lambda: model.ask(golden.cells(), f"What is {{cell}}? {odd} Say so."),
        lambda: model.generate(instruction=f"Write a cell. {odd}"),
        lambda: model.ask(golden.cells(), "Is it {tissue}?", fields={"tissue": f"liver {odd}"}),
    ):
        with pytest.raises(UsageError, match=f"{odd}.* a meaning of its own"):
            wrong()


def test_questions_are_texts(model: DialogueModel, golden: GoldenInstructCell) -> None:
    number: Any = 5
    for wrong in (lambda: model.ask(golden.cells(), number), lambda: model.generate(instruction=number)):
        with pytest.raises(UsageError, match="the instruction is 5, which is no text"):
            wrong()


def test_drawn_instructions_that_do_not_name_a_value_leave_it_out(model: DialogueModel) -> None:
    order = CellOrder(40, {"cell_type": "T Cell", "tissue": "liver"}, draws=True)
    asked = _instructions(model.instruct, order, [f"generated_{i}" for i in range(40)])
    assert {one.fields for one in asked} == {frozenset(("cell_type",)), frozenset(("cell_type", "tissue"))}
    answer = Answer("", "", (), 0.0, "stop")
    kept = [(f"generated_{i}", one, answer) for i, one in enumerate(asked)]
    obs = _laid_out(model.instruct, order, kept, sp.csr_matrix((40, 500))).obs
    assert [text == "liver" for text in obs["tissue"]] == ["liver" in one.text for one in asked]
