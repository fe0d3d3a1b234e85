"""Files of labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellscribe.engine.errors import InputError, UsageError
from cellscribe.engine.labels import Labelled, Labels, labels_of
from cellscribe.engine.labels_file import read_labels


def write(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "\ufeff# cells of blood\nB cell\tCL:0000236\n\nT cell\n"),
        ("a.tsv", "B cell\tCL:0000236\r\nT cell\t\r\n"),
        ("a.json", '{"B cell": "CL:0000236", "T cell": null}'),
    ],
)
def test_labels_with_ids(tmp_path: Path, name: str, text: str) -> None:
    found = read_labels(write(tmp_path, name, text))
    assert found.names == ("B cell", "T cell")
    assert found.term_ids == ("CL:0000236", "")
    assert found.has_terms
    done = Labelled(found, ("T cell", "B cell", ""), np.zeros(3, np.float32))
    assert done.term_ids == ("", "CL:0000236", "")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "B cell\tCL:0000236\tIt makes antibodies.\nT cell\t\tIt kills.\n"),
        (
            "a.json",
            '{"B cell": {"id": "CL:0000236", "definition": "It makes antibodies."},'
            ' "T cell": {"definition": "It kills."}}',
        ),
    ],
)
def test_labels_with_definitions(tmp_path: Path, name: str, text: str) -> None:
    found = read_labels(write(tmp_path, name, text))
    assert found.names == ("B cell", "T cell")
    assert found.term_ids == ("CL:0000236", "")
    assert found.definitions == ("It makes antibodies.", "It kills.")
    assert found.has_definitions


def test_an_ontology(tmp_path: Path) -> None:
    text = (
        "format-version: 1.4\n\n[Term]\nid: CL:0000236\nname: B cell\n"
        'def: "It makes \\"antibodies\\"." [PMID:1]\nname: later\n\n'
        "[Term]\nid: CL:0000084\nname: T cell\n\n[Term]\nid: CL:0000001\nname: gone\nis_obsolete: true\n\n"
        "[Term]\nid: GO:0000001\nname: other\n\n[Typedef]\nid: CL:0000002\nname: part of\n"
    )
    found = read_labels(write(tmp_path, "cl.obo", text))
    assert found.names == ("B cell", "T cell")
    assert found.term_ids == ("CL:0000236", "CL:0000084")
    assert found.definitions == ('It makes "antibodies".', "")
    assert not found.has_definitions


def test_a_plain_list(tmp_path: Path) -> None:
    found = read_labels(write(tmp_path, "a.json", '["B cell", "T cell"]'))
    assert found.names == ("B cell", "T cell")
    assert not found.has_terms


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "B cell", "no ending that is understood"),
        ("a.txt", "\n# nothing\n", "holds no labels"),
        ("a.txt", "B cell\nT cell\nB cell\n", "'B cell' is there twice"),
        ("a.txt", "B cell\nT cell\nb  Cell\n", "'B cell' and 'b  Cell' differ in case or spaces alone"),
        ("a.json", '{"T cell": null, "T Cell ": null}', "'T cell' and 'T Cell' differ"),
        ("a.tsv", "B cell\n\tCL:0000236\n", "a label has no name"),
        ("a.txt", "B cell\tCL:1\n", "'CL:1', which is none"),
        ("a.json", "{", "cannot be read as labels"),
        ("a.json", "3", "neither a list nor a mapping"),
        ("a.json", '["a", "a"]', "'a' is there twice"),
        ("a.json", '{"a": 3}', "an id is no text"),
        ("a.json", '{"a": {"term": "CL:0000236"}}', "an entry 'term', where id and definition are known"),
        ("a.obo", "[Term]\nid: GO:0000001\nname: other\n", "holds no labels"),
        ("a.json", '[""]', "neither a list nor a mapping"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_labels(write(tmp_path, name, text))
    with pytest.raises(InputError, match="does not exist"):
        read_labels(tmp_path / "nothing.txt")


def test_scores_give_margin_and_runner_up() -> None:
    labels = Labels(("T cell", "B cell", "monocyte"), ("", "", ""))
    scores = np.array([[0.2, 0.7, 0.1], [np.nan] * 3, [0.5, 0.1, 0.4]], np.float32)
    found = Labelled.of_scores(labels, ("B cell", "", "T cell"), scores)
    np.testing.assert_allclose(found.score, [0.7, np.nan, 0.5], rtol=1e-6)
    assert found.margin is not None
    np.testing.assert_allclose(found.margin, [0.5, np.nan, 0.1], rtol=1e-6)
    assert found.runners_up == ("T cell", "", "monocyte")
    alone = Labelled.of_scores(Labels(("T cell",), ("",)), ("T cell",), np.ones((1, 1), np.float32))
    assert (alone.runners_up, alone.margin.tolist() if alone.margin is not None else None) == (("",), [1.0])


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"B cell\n\xff\xfe\n")
    with pytest.raises(InputError, match="cannot be read as labels"):
        read_labels(tmp_path / "a.txt")


def test_labels_of_names_and_mappings() -> None:
    named = labels_of(["B cell", " T cell "])
    assert named == Labels(("B cell", "T cell"), ("", ""))
    assert labels_of(named) is named
    assert labels_of(None) is None
    assert labels_of({"B cell": "CL:0000236", "T cell": None}) == Labels(("B cell", "T cell"), ("CL:0000236", ""))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "there are no labels"),
        (["B cell", 3], "3, which is no text"),
        ([None], "None, which is no text"),
        ({"B cell": 3}, "3, which is no text"),
        (["B cell", " "], "a label has no name"),
        (["B cell", "B CELL"], "differ in case or spaces alone"),
        ({"B cell": "CL:1"}, "'CL:1', which is none"),
    ],
)
def test_labels_that_cannot_be_used(given: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        labels_of(given)
