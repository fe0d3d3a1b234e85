"""Samples of several cells in one answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.errors import InputError, UsageError
from cellscribe.engine.sentences import Inverse, SentenceGenes
from cellscribe.engine.text_cells import write_samples
from cellscribe.engine.text_model import TextModel
from cellscribe.engine.text_samples import Sample, sample_of
from cellscribe.engine.text_types import Answer, TextSettings

GENES, LINE = SentenceGenes.of(["CD3D", "CD74", "CD7", "LYZ"]), Inverse(-0.5, 1.5)


@pytest.fixture
def model(c2s_bundle: Path) -> TextModel:
    """A golden checkpoint of random weights."""
    return TextModel(open_bundle(c2s_bundle), 2, "onnxruntime-cpu", settings=TextSettings(num_genes=6))


def answered(monkeypatch: pytest.MonkeyPatch, *answers: Answer) -> list[tuple[list[str], dict[str, object]]]:
    """Put these answers in the place of the model's, and return what is asked."""
    asked: list[tuple[list[str], dict[str, object]]] = []

    def found(_: TextModel, names: list[str], texts: list[str], **given: object) -> tuple[Answer, ...]:
        asked.append((texts, given))
        return answers

    monkeypatch.setattr(TextModel, "answers", found)
    return asked


def test_every_line_is_a_cell_of_its_sample(model: TextModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answered(
        monkeypatch,
        Answer("sample_0", "CD3D LYZ\n\n LYZ nothing\n", (1,), -1.0, "stop"),
        Answer("sample_1", "CD74\n" * 7, (1,), -1.0, "stop"),
        Answer("sample_2", "LYZ\nCD3D CD7", (1,), -1.0, "length"),
        Answer("sample_3", "", (), -1.0, "failed", "failed: too long"),
    )
    cells, said = write_samples(model, 4, GENES, LINE, Sample(5, tissue="liver"))
    assert cells.obs["sample"].tolist() == ["sample_0"] * 2 + ["sample_1"] * 5 + ["sample_2"] * 2
    assert cells.obs_names[:3].tolist() == ["sample_0_cell_0", "sample_0_cell_1", "sample_1_cell_0"]
    assert cells.obs["cell_sentence"].tolist()[-1] == "CD3D"  # CD7 may be the beginning of CD74
    assert set(cells.obs["tissue"]) == {"liver"}
    assert "1 of 3 samples ended at the limit of tokens and lost their last word" in said
    assert model.notice == (
        "1 of 4 samples could not be written: too long. "
        "9 of 20 cells were written; in 2 samples the model ended before its 5 cells."
    )
    kept = cells.uns["cellscribe"]
    assert [kept[name] for name in ("num_asked", "num_written", "num_failed", "cells_per_sample")] == [20, 9, 1, 5]
    texts, given = asked[0]
    assert all("Write 5 human cells of liver, each as 6 genes" in text for text in texts)
    assert given["max_new_tokens"] == 8 * 6 * 5


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, "cells of one sample"),
        ({"cell_type": "B cell"}, "cells of the type B cell"),
        ({"tissue": "blood"}, "cells of blood"),
        ({"abstract": "We looked."}, "Abstract of a study: We looked."),
    ],
)
def test_what_is_said_of_a_sample_chooses_the_task(
    model: TextModel, monkeypatch: pytest.MonkeyPatch, said: dict[str, str], words: str
) -> None:
    asked = answered(monkeypatch, Answer("sample_0", "CD3D", (1,), -1.0, "stop"))
    write_samples(model, 1, GENES, LINE, Sample(7, **said))
    assert words in asked[0][0][0]


def test_samples_that_cannot_be_written(model: TextModel) -> None:
    for count in (4, 21):
        with pytest.raises(UsageError, match="from 5 to 20"):
            Sample(count)
    with pytest.raises(UsageError, match="only one of them"):
        Sample(5, "B cell", "blood")
    with pytest.raises(UsageError, match="the cell type is empty"):
        Sample(5, " ")
    with pytest.raises(UsageError, match="add --cells-per-sample"):
        sample_of(None, None, "blood", None)
    assert sample_of(None, "B cell", None, None) is None
    with pytest.raises(UsageError, match="at least 1"):
        write_samples(model, 0, GENES, LINE, Sample(5))
    with pytest.raises(InputError, match=r"none of 2 samples could be written .*exceed the context of 1024"):
        write_samples(model, 2, GENES, LINE, Sample(5, abstract="x y " * 3000))
