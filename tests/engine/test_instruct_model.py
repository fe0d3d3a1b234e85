"""Answers, labels and written cells of the golden InstructCell, as a user gets them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from instruct_bundles import GoldenInstructCell

import cellscribe as cs
from cellscribe.engine.cells import open_cells
from cellscribe.engine.dialogue_model import DialogueModel
from cellscribe.engine.errors import BackendError, BundleError, InputError, UsageError
from cellscribe.engine.instruct.annotate import annotate_cells
from cellscribe.engine.instruct.asking import AskSettings
from cellscribe.engine.instruct.compare_settings import CompareSettings
from cellscribe.engine.instruct.comparison import compare_cells
from cellscribe.engine.instruct_model import InstructModel


@pytest.fixture(scope="module")
def golden(shared: Path) -> GoldenInstructCell:
    return GoldenInstructCell(shared)


@pytest.fixture(scope="module")
def model(instruct_bundle: Path) -> DialogueModel:
    found = cs.load(instruct_bundle)
    assert isinstance(found, DialogueModel)
    return found


def asking(golden: GoldenInstructCell, name: str = "annot") -> list[str]:
    return list(golden.case(name).instructions)


def test_answers_are_the_golden_ones(model: DialogueModel, golden: GoldenInstructCell) -> None:
    cells = golden.cells()
    for i, instruction in enumerate(asking(golden)):
        found = model.ask(cells[i], instruction)
        assert found["answer"].tolist() == [golden.case("annot").texts[i]]
        assert found["status"].tolist() == ["ok"]
        assert found["logprob"][0] < 0.0


def test_many_cells_get_what_each_gets_alone(model: DialogueModel, golden: GoldenInstructCell) -> None:
    cells, instruction = golden.cells(), asking(golden)[0]
    together = model.ask(cells, instruction, batch_size=3)
    alone = [model.ask(cells[i], instruction)["answer"][0] for i in range(cells.n_obs)]
    assert together["answer"].tolist() == alone


def test_logged_values_give_the_same_answers(model: DialogueModel, golden: GoldenInstructCell) -> None:
    cells, instruction = golden.cells(), asking(golden)[0]
    logged = cells.copy()
    totals = np.asarray(logged.X).sum(1, keepdims=True)
    logged.X = np.log1p(np.asarray(logged.X) / totals * 3e3).astype(np.float32)
    assert model.ask(logged, instruction)["answer"].tolist() == model.ask(cells, instruction)["answer"].tolist()


def test_genes_are_found_in_any_order(model: DialogueModel, golden: GoldenInstructCell) -> None:
    cells, instruction = golden.cells(), asking(golden)[0]
    more = ad.AnnData(np.full((4, 2), 7.0, np.float32), var=pd.DataFrame(index=["nothing", "known"]))
    more.obs_names = cells.obs_names
    mixed = ad.concat([more, cells], axis=1)[:, ::-1].copy()
    assert model.ask(mixed, instruction)["answer"].tolist() == model.ask(cells, instruction)["answer"].tolist()


def test_labels_are_of_the_list(model: DialogueModel, golden: GoldenInstructCell) -> None:
    cells = golden.cells()
    cells.obs["species"], cells.obs["tissue"] = "human", "liver"
    fields = {"sequencing_method": "HiSeq X Ten System"}
    frame = model.annotate(cells, labels=golden.labels, fields=fields, scores=True)
    assert set(frame["label"]) <= set(golden.labels)
    scores = np.asarray(cells.obsm["cellscribe_label_scores"])
    np.testing.assert_allclose(scores.sum(1), 1.0, atol=1e-5)
    assert [golden.labels[i] for i in scores.argmax(1)] == frame["label"].tolist()
    np.testing.assert_allclose(frame["score"], scores.max(1), rtol=1e-5)
    assert cells.obs["cellscribe_label"].tolist() == frame["label"].tolist()
    walked = model.annotate(cells, labels=golden.labels, fields=fields, copy=True)
    assert set(walked["label"]) <= set(golden.labels)


def test_labels_are_found_in_sentences(model: DialogueModel, golden: GoldenInstructCell) -> None:
    case = golden.case("annot")
    row = next(i for i, text in enumerate(case.texts) if text.startswith("The cell type is"))
    cell = golden.cells()[row].copy()
    frame = model.annotate(cell, labels=golden.labels, instruction=case.instructions[row], in_words=True)
    assert frame["label"].tolist()[0] in case.texts[row]
    assert frame["answer"].tolist() == [case.texts[row]]
    assert cell.obs["cellscribe_answer"].tolist() == [case.texts[row]]
    assert cell.uns["cellscribe"]["instruction"] == case.instructions[row]
    lost = model.annotate(cell, labels=["Neuron"], instruction=case.instructions[row], in_words=True)
    assert lost["label"].tolist() == [""]
    assert "names no label of the list, or several" in lost["status"].iloc[0]


def test_the_base_of_a_logarithm_changes_nothing(model: DialogueModel, golden: GoldenInstructCell) -> None:
    cells, instruction = golden.cells(), asking(golden)[0]
    counts = np.asarray(sp.csr_matrix(cells.X).toarray(), np.float64)
    cells.X = np.log1p(counts / counts.sum(1, keepdims=True) * 1e4).astype(np.float32)
    expected = model.ask(cells, instruction, values="lognorm")
    cells.X = np.asarray(cells.X) / np.float32(np.log(2))
    found = model.ask(cells, instruction, values="lognorm")
    assert found["answer"].tolist() == expected["answer"].tolist()
    np.testing.assert_allclose(found["logprob"], expected["logprob"], rtol=1e-3)


def test_few_known_genes_are_said(model: DialogueModel, golden: GoldenInstructCell) -> None:
    cells = golden.cells()
    cells.var_names = [name if i < 200 else f"x{i}" for i, name in enumerate(cells.var_names)]
    model.ask(cells, asking(golden)[0], max_new_tokens=1)
    assert model.notice.startswith("Only 200 of the 500 genes the model reads")
    cells.var_names = [name.lower() if i < 450 else name for i, name in enumerate(golden.genes)]
    model.ask(cells, asking(golden)[0], max_new_tokens=1)
    num_left = sum(name == other for name, other in zip(cells.var_names, golden.genes, strict=True))
    near = f"({500 - num_left} more are there in another case, as of other species), so that"
    assert model.notice.startswith(f"Only {num_left} of the 500 genes")
    assert near in model.notice
    model.ask(golden.cells(), asking(golden)[0])
    assert model.notice == ""


def test_own_instructions_have_fields(instruct_bundle: Path, golden: GoldenInstructCell) -> None:
    model, cells = InstructModel(cs.load(instruct_bundle).bundle), golden.cells()
    cells.obs["tissue"] = ["liver", "lung", "liver", "{cell}"]
    with open_cells(cells) as source:

        def said(text: str, **fields: str) -> list[str]:
            return model.instructions(source, np.arange(2), AskSettings(text, fields=fields))

        assert "Of liver: <CELL><CELL0></CELL>?" in said("Of {tissue}: {cell}?")[0]
        assert "Of lung, human" in said("Of {tissue}, {species}", species="human")[1]
        assert 'Write {"type": "..."}' in said('Write {"type": "..."}')[0]
        for wrong, message in (
            (lambda: said("Is it {age}?"), r"names \{age\}; known are"),
            (lambda: said("Is it {drug}?"), r"needs a value for \{drug\}"),
            (lambda: said("Is it?", drug="JQ1"), r"does not name \{drug\}"),
            (lambda: said("Is it {drug}?", drug="</s>"), "has a meaning of its own"),
            (lambda: model.instructions(source, np.arange(4), AskSettings()), "obs of cell_3 is '{cell}'"),
            (lambda: model.about_cells(source, rows=np.array([1, 1])), "names a cell twice"),
        ):
            with pytest.raises(UsageError, match=message):
                wrong()


def test_odd_values_of_obs_fail_alone(model: DialogueModel, golden: GoldenInstructCell) -> None:
    cells = golden.cells()
    cells.obs["tissue"] = ["liver", " ", " liver ", "l</s>x"]
    found = model.annotate(cells.copy(), labels=golden.labels)
    assert found["status"].tolist()[:3] == ["ok"] * 3
    assert found["status"].iloc[3].startswith("failed: tissue in obs of cell_3 is 'l</s>x', where </s> has a meaning")
    assert model.ask(cells[[3]].copy(), task="cell_type_annotation")["status"].iloc[0].startswith("failed: tissue in")
    with open_cells(cells) as source:
        told = model.instruct.instructions(source, np.arange(3), AskSettings())
    assert ["liver" in one for one in told] == [True, False, True]
    assert "  " not in told[2]
    assert model.annotate(cells[:3].copy(), labels=golden.labels)["label"].tolist() == found["label"].tolist()[:3]


@pytest.mark.parametrize("row", [4, -1])
def test_rows_that_are_not_there_are_refused(instruct_bundle: Path, golden: GoldenInstructCell, row: int) -> None:
    model = InstructModel(cs.load(instruct_bundle).bundle)
    with open_cells(golden.cells()) as source:
        for method in (model.about_cells, partial(annotate_cells, model)):
            with pytest.raises(InputError, match=f"has rows 0 to 3; row {row} was asked for"):
                method(source, rows=np.array([0, row]))


def test_free_labels_are_answers(model: DialogueModel, golden: GoldenInstructCell) -> None:
    frame = model.annotate(golden.cells(), instruction=asking(golden)[0])
    assert frame["label"].iloc[0] == golden.case("annot").texts[0]
    assert ((frame["score"] > 0) & (frame["score"] <= 1)).all()


def test_instructions_come_from_obs_and_templates(instruct_bundle: Path, golden: GoldenInstructCell) -> None:
    model, cells = InstructModel(cs.load(instruct_bundle).bundle), golden.cells()
    cells.obs["tissue"] = ["liver", "lung", None, "liver"]
    with open_cells(cells) as source:
        rows = np.arange(4)
        found = model.instructions(source, rows, AskSettings(fields={"species": "mouse"}))
        assert "from liver of mouse" in found[0]
        assert "from lung of mouse" in found[1]
        assert "from mouse" in found[2]
        assert all(one.startswith("User:\n") and one.endswith("\n\nAssistant:\n") for one in found)
        assert all(one.count("<CELL><CELL0></CELL>") == 1 for one in found)
        drawn = model.instructions(source, rows, AskSettings(draws=True, seed=3))
        assert drawn == model.instructions(source, rows, AskSettings(draws=True, seed=3))
        with pytest.raises(UsageError, match=r"needs a value for \{drug\}"):
            model.instructions(source, rows, AskSettings(task="drug_sensitivity_prediction"))
        asked = model.instructions(
            source, rows, AskSettings(task="drug_sensitivity_prediction", fields={"drug": "JQ1"})
        )
        assert all("resistant to JQ1" in one for one in asked)


def test_cells_are_written(model: DialogueModel, golden: GoldenInstructCell) -> None:
    instruction = asking(golden, "cpcg")[0].replace("T Cell", "{cell_type}")
    cells = model.generate(instruction=instruction, n=40, fields={"cell_type": "T Cell"})
    assert cells.shape == (40, 500)
    assert cells.var_names.tolist() == golden.genes
    assert cells.obs["answer"].unique().tolist() == [golden.case("cpcg").texts[0]]
    assert cells.obs["cell_type"].unique().tolist() == ["T Cell"]
    counts = sp.csr_matrix(cells.X)
    assert (counts.data == np.rint(counts.data)).all()
    assert counts.min() >= 0
    assert len({row.tobytes() for row in counts.toarray()}) == 40


def test_a_written_cell_depends_on_its_name_and_seed_alone(model: DialogueModel, golden: GoldenInstructCell) -> None:
    instruction = asking(golden, "cpcg")[0]
    many, few = (model.generate(instruction=instruction, n=n).X for n in (70, 3))
    np.testing.assert_array_equal(sp.csr_matrix(many)[:3].toarray(), sp.csr_matrix(few).toarray())
    other = DialogueModel(model.bundle, seed=1).generate(instruction=instruction, n=3).X
    assert (sp.csr_matrix(other) != sp.csr_matrix(few)).nnz


def test_drawn_counts_have_the_means_that_are_written(model: DialogueModel, golden: GoldenInstructCell) -> None:
    instruction = asking(golden, "cpcg")[0]
    drawn = model.generate(instruction=instruction, n=600)
    means = model.generate(instruction=instruction, n=600, means=True)
    theirs, ours = (np.asarray(sp.csr_matrix(one.X).mean(0)).ravel() for one in (means, drawn))
    large = theirs > np.quantile(theirs, 0.9)
    assert np.corrcoef(np.log1p(theirs[large]), np.log1p(ours[large]))[0, 1] > 0.9
    assert abs(ours.sum() / theirs.sum() - 1) < 0.1


def test_words_may_be_drawn(model: DialogueModel, golden: GoldenInstructCell) -> None:
    instruction = asking(golden, "cpcg")[0]
    found = model.generate(instruction=instruction, n=6, temperature=0.7)
    again = model.generate(instruction=instruction, n=6, temperature=0.7, batch_size=2)
    np.testing.assert_array_equal(sp.csr_matrix(found.X).toarray(), sp.csr_matrix(again.X).toarray())


def test_an_answer_without_a_cell_is_said(model: DialogueModel) -> None:
    with pytest.raises(BackendError, match=r"answered without a cell \(it said .*\); ask for a cell in other words"):
        model.generate(instruction="What is a cell?", n=2)


def test_bad_input_is_one_sentence(model: DialogueModel, golden: GoldenInstructCell) -> None:
    cells, half = golden.cells(), cast(Any, 2.5)
    strange = cells.copy()
    strange.var_names = [f"x{i}" for i in range(500)]
    with pytest.raises(InputError, match="none of the 500 genes is one of the model's 500"):
        model.ask(strange, "What is it?")
    empty = cells.copy()
    empty.X = np.vstack([np.zeros((1, 500)), np.asarray(cells.X)[1:]]).astype(np.float32)
    found = model.ask(empty, asking(golden)[1])
    assert found["status"].tolist() == ["failed: it has no counts", "ok", "ok", "ok"]
    for wrong, message in (
        (lambda: model.ask(cells), "a question or --task"),
        (lambda: model.ask(cells, "   "), "the instruction is empty"),
        (lambda: model.ask(cells, "{cell} and {cell}?"), "names 2 cells where 1 is given"),
        (lambda: model.ask(cells, "word " * 3000), "tokens and 2,048 are read; shorten it"),
        (lambda: model.ask(cells, task="nothing"), "the task 'nothing' is not known"),
        (lambda: model.ask(cells, "What?", batch_size=0), "batch_size is 0"),
        (lambda: model.ask(cells, "What?", max_new_tokens=0), "max_new_tokens is 0"),
        (lambda: model.annotate(cells, labels=["T Cell", "T Cell"]), "twice"),
        (lambda: model.annotate(cells, scores=True), "the scores of all labels need a list"),
        (lambda: model.annotate(cells, in_words=True), "finding labels in answers needs a list"),
        (lambda: model.generate("B Cell", n=0), r"the number of cells \(-n, n\) is 0; choose a whole number"),
        (lambda: model.generate("B Cell", n=half), r"the number of cells \(-n, n\) is 2.5; choose a whole number"),
        (lambda: model.generate("B Cell", n=10**12), "is 1,000,000,000,000; choose at most 10,000,000 for one call"),
        (lambda: model.generate(" "), "the value of cell_type is empty"),
        (lambda: model.generate(), r"needs a value for \{cell_type\}"),
        (lambda: model.generate(instruction="{cell}"), "names 1 cell where none is given"),
        (lambda: DialogueModel(model.bundle, template="some"), "the number of an instruction"),
        (lambda: DialogueModel(model.bundle, threads=0), "threads is 0"),
        (lambda: cs.load(model.bundle.folder, organism="mouse"), "follows instructions; leave gene lists"),
    ):
        with pytest.raises(UsageError, match=message):
            wrong()


def test_what_the_family_lacks_is_said(model: DialogueModel, golden: GoldenInstructCell) -> None:
    for method in (model.describe, model.stream, model.embed):
        with pytest.raises(BundleError, match="use annotate, ask or generate"):
            method(golden.cells())


def test_several_types_are_compared_together(model: DialogueModel, golden: GoldenInstructCell) -> None:
    instruction = asking(golden, "cpcg")[0].replace("T Cell", "{cell_type}")
    kinds = ("T Cell", "B Cell")
    made = ad.concat({one: model.generate(one, n=6, instruction=instruction) for one in kinds}, index_unique="-")
    real = made.copy()
    found = compare_cells(made, real, settings=CompareSettings(has_map=False, neighbours=(5,)))
    assert found.num_generated.tolist() == [6, 6]
    assert not any("of one type" in one for one in found.notes)
