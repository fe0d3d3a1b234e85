"""Labels that a model cannot write or cannot read, and values that it cannot read."""

from __future__ import annotations

from pathlib import Path

import pytest
from instruct_bundles import GoldenInstructCell

import cellscribe as cs
from cellscribe.engine.dialogue_model import DialogueModel
from cellscribe.engine.errors import UsageError

GREEK = "The model cannot read 'γδ' in "


@pytest.fixture(scope="module")
def golden(shared: Path) -> GoldenInstructCell:
    return GoldenInstructCell(shared)


@pytest.fixture(scope="module")
def model(instruct_bundle: Path) -> DialogueModel:
    found = cs.load(instruct_bundle)
    assert isinstance(found, DialogueModel)
    return found


@pytest.mark.parametrize("odd", ["<CELL0>", "<pad>", "T </s> cell", "<unk>", "{cell}"])
def test_tokens_that_are_no_words_are_no_labels(model: DialogueModel, golden: GoldenInstructCell, odd: str) -> None:
    labels, cells = [odd, "T Cell"], golden.cells()
    for wrong in (
        lambda: model.annotate(cells, labels=labels),
        lambda: model.annotate(cells, labels=labels, in_words=True),
        lambda: model.ask(cells, "Which?", labels=labels),
    ):
        with pytest.raises(UsageError, match=r"a label is .* has a meaning of its own; rename it"):
            wrong()


@pytest.mark.parametrize("scores", [False, True])
def test_labels_are_spelt_as_they_were_given(model: DialogueModel, golden: GoldenInstructCell, scores: bool) -> None:
    labels = {"naïve γδ T Cell": "CL:0000798", "γδ": None}
    found = model.annotate(golden.cells(), labels=labels, scores=scores)
    assert set(found["label"]) <= set(labels)
    assert found["status"].tolist() == ["ok"] * 4
    assert "'ï' in 'naïve γδ T Cell'" in model.notice


def test_what_the_model_cannot_read_is_said(model: DialogueModel, golden: GoldenInstructCell) -> None:
    cells = golden.cells()
    model.annotate(cells, labels=["γδ T Cell", "B Cell"])
    assert model.notice.startswith(f"{GREEK}'γδ T Cell', and sees <unk> there")
    model.ask(cells, 'Which? Write {"type": "γδ"}', max_new_tokens=1)
    assert """cannot read '{"', '"', '"γδ"}' in what it is asked, and sees""" in model.notice
    model.ask(cells, "Which cell type of {tissue} is this?", fields={"tissue": "γδ"}, max_new_tokens=1)
    assert model.notice.startswith(f"{GREEK}what it is asked")
    instruction = golden.case("cpcg").instructions[0].replace("T Cell", "{cell_type}")
    model.generate("γδ T Cell", n=2, instruction=instruction)
    assert model.notice.startswith(f"{GREEK}what it is asked")
    model.generate("T Cell", n=2, instruction=instruction)
    assert model.notice == ""


def test_what_differs_in_that_alone_is_refused(model: DialogueModel, golden: GoldenInstructCell) -> None:
    cells = golden.cells()
    with pytest.raises(UsageError, match=r"'αβ T Cell' and 'γδ T Cell' are the same .* cannot read 'αβ', 'γδ'; spell"):
        model.annotate(cells, labels=["αβ T Cell", "γδ T Cell"])
    with pytest.raises(UsageError, match="'T Cell' and 'γδ T Cell' are the same to the model"):
        model.annotate(cells, labels=["T Cell", "γδ T Cell"], in_words=True)
    cells.obs["tissue"] = ["α", "liver", "β", "liver"]
    with pytest.raises(UsageError, match=r"two of the instructions are the same .* cannot read 'α', 'β' in their"):
        model.ask(cells, task="cell_type_annotation")
    cells.obs["tissue"] = ["α", "liver", "α", "liver"]
    assert model.ask(cells, task="cell_type_annotation", max_new_tokens=1)["status"].tolist() == ["ok"] * 4
