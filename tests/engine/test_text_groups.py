"""Groups of cells in one prompt, questions in own words, and cells that are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.cells import open_cells
from cellscribe.engine.errors import InputError, UsageError
from cellscribe.engine.sentences import Inverse, SentenceGenes
from cellscribe.engine.text_cells import write_cells
from cellscribe.engine.text_groups import about_groups, ask_cells, groups_of
from cellscribe.engine.text_model import TextModel
from cellscribe.engine.text_types import Answer, TextSettings
from cellscribe.engine.types import Sampling


@pytest.fixture
def bundle(c2s_bundle: Path) -> Bundle:
    """A golden checkpoint of random weights."""
    return open_bundle(c2s_bundle)


def model(bundle: Bundle) -> TextModel:
    return TextModel(bundle, 2, "onnxruntime-cpu", settings=TextSettings(num_genes=6))


def cells(num_cells: int = 24) -> AnnData:
    counts = np.random.default_rng(0).poisson(0.9, (num_cells, 40)).astype(np.float32)
    counts[:, 0] += 1
    found = AnnData(sp.csr_matrix(counts))
    found.obs_names, found.var_names = ([f"{kind}{i}" for i in range(n)] for kind, n in (("c", num_cells), ("G", 40)))
    found.obs["donor"] = pd.Categorical(["one", "two", None] * (num_cells // 3))
    return found


def test_groups_are_drawn_by_name_and_not_by_order() -> None:
    whole = cells()
    with open_cells(whole) as source, open_cells(whole[::-1].copy()) as turned:
        groups, others = groups_of(source, "donor", 5), groups_of(turned, "donor", 5)
        assert {one.name for one in groups} == {"one", "two"}
        for group in groups:
            assert len(group.rows) == 5
            assert set(whole.obs["donor"].iloc[group.rows]) == {group.name}
            other = next(one for one in others if one.name == group.name)
            assert set(source.obs_names[group.rows]) == set(turned.obs_names[other.rows])
        assert len(groups_of(source, "donor", 20)[0].rows) == 8


def test_groups_that_no_prompt_takes() -> None:
    with open_cells(cells(12)) as source:
        with pytest.raises(InputError, match="'one' of donor has 4 cells"):
            groups_of(source, "donor", 5)
        with pytest.raises(UsageError, match="from 5 to 20"):
            groups_of(source, "donor", 4)
        with pytest.raises(InputError, match="no obs column 'nothing'"):
            groups_of(source, "nothing", 5)


def test_a_task_about_groups(bundle: Bundle) -> None:
    with open_cells(cells()) as source:
        groups = groups_of(source, "donor", 5)
        found = about_groups(model(bundle), source, groups, "tissue_prediction", labels=("blood", "liver"))
    assert [one.name for one in found] == [group.name for group in groups]
    assert {one.text for one in found} <= {"blood", "liver"}


def test_cells_that_express_nothing_are_not_counted(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    whole = model(bundle)
    encode = whole.encode
    monkeypatch.setattr(whole, "encode", lambda texts: asked.extend(texts) or encode(texts))
    given = cells()
    dense = given.X.toarray()
    dense[(given.obs["donor"] == "one").to_numpy()] = 0
    dense[np.flatnonzero(given.obs["donor"] == "two")[:3]] = 0
    given.X = sp.csr_matrix(dense)
    with open_cells(given) as source:
        found = about_groups(whole, source, groups_of(source, "donor", 20), "tissue_prediction", max_new_tokens=2)
    assert [len(one.cells) for one in found] == [0, 5]
    assert found[1].cells == tuple(given.obs_names[given.obs["donor"] == "two"][3:])
    assert [one.status for one in found] == ["failed: no gene is expressed in any of its cells", "ok"]
    assert asked[1].startswith("5 human cells")
    assert sum(line.startswith("G") for line in asked[1].splitlines()) == 5


def test_a_small_group_fails_alone(bundle: Bundle) -> None:
    given = cells(30)
    given.obs["donor"] = ["small", "many"] * 3 + ["many"] * 24
    with open_cells(given) as source:
        groups = groups_of(source, "donor", 5)
        found = about_groups(model(bundle), source, groups, "tissue_prediction", labels=("blood", "liver"))
    assert [(one.name, one.status) for one in found] == [
        ("small", "failed: it has 3 cells and a prompt takes at least 5"),
        ("many", "ok"),
    ]
    assert [len(one.cells) for one in found] == [0, 5]


def test_cells_of_all_groups_are_read_at_once(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, asked = model(bundle), list[np.ndarray]()
    sentences = whole.sentences
    monkeypatch.setattr(whole, "sentences", lambda source, rows: asked.append(rows) or sentences(source, rows))
    with open_cells(cells()) as source:
        groups = groups_of(source, "donor", 6)
        found = about_groups(whole, source, groups, "tissue_prediction", labels=("blood", "liver"))
        for one, group in zip(found, groups, strict=True):
            assert one.cells == tuple(source.obs_names[group.rows])
    assert [len(rows) for rows in asked] == [12]


def test_a_question_in_own_words(bundle: Bundle) -> None:
    with open_cells(cells()) as source:
        rows = np.arange(4)
        before = ask_cells(model(bundle), source, "Is it dividing?", rows=rows, max_new_tokens=3)
        placed = ask_cells(model(bundle), source, "{cell_sentence} of {organism}?", rows=rows, max_new_tokens=3)
        bad = (
            ("  ", "is empty"),
            ("{", "odd braces"),
            ("{tissue}", r"\{tissue\}"),
            ("{cell_sentence!r:>9}", "a format"),
        )
        for question, said in bad:
            with pytest.raises(UsageError, match=said):
                ask_cells(model(bundle), source, question, rows=rows)
    assert [len(one.token_ids) <= 3 for one in before] == [True] * 4
    assert [one.token_ids for one in before] != [one.token_ids for one in placed]


def test_written_cells_have_sentences_and_expression(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights write no genes: sentences are put in their place, and what was asked for is looked at."""
    asked: list[tuple[object, ...]] = []

    def answers(_: TextModel, names: list[str], texts: list[str], **given: object) -> tuple[Answer, ...]:
        asked.append((names, texts, given))
        return tuple(Answer(name, f"CD3D G{i} nothing CD3D", (1,), -1.0, "stop") for i, name in enumerate(names))

    monkeypatch.setattr(TextModel, "answers", answers)
    genes = SentenceGenes.of(["cd3d", *(f"G{i}" for i in range(6))])
    made, said = write_cells(model(bundle), 6, genes, Inverse(-0.5, 1.5), cell_type="B cell")
    assert made.shape == (6, 7)
    assert made.obs["cell_type"].tolist() == ["B cell"] * 6
    assert made.obs["cell_sentence"].iloc[2] == "CD3D G2 nothing CD3D"
    assert said == "6 of 24 words are no genes, 6 repeats were merged"
    line = 1.5 - 0.5 * np.log10(1 + np.arange(3))
    np.testing.assert_allclose(made.X[2].toarray()[0], [line[1], 0, 0, line[0], 0, 0, 0], atol=1e-6)  # merged between
    names, texts, given = asked[0]
    assert len(set(names)) == 6
    assert all("B cell" in text for text in texts)
    assert given["sampling"] == Sampling(0.9, 0.7, 0)
    assert given["max_new_tokens"] == 8 * 6


def test_cells_that_cannot_be_written(bundle: Bundle) -> None:
    genes, line = SentenceGenes.of(["CD3D"]), Inverse(-0.5, 1.5)
    with pytest.raises(UsageError, match="at least 1"):
        write_cells(model(bundle), 0, genes, line)
    with pytest.raises(UsageError, match="cell type is empty"):
        write_cells(model(bundle), 1, genes, line, cell_type=" ")
    with pytest.raises(InputError, match="no word of 2 sentences"):
        write_cells(model(bundle), 2, SentenceGenes.of(["NOSUCHGENE"]), line, max_new_tokens=3)
