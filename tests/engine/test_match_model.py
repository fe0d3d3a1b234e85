"""What a bundle that reads ranks refuses of the Python API, a sentence each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from anndata import read_h5ad

import cellscribe as cs
from cellscribe.cli.annotate import rerank_of
from cellscribe.engine.errors import UsageError
from cellscribe.engine.labels import Labels
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.rank_model import label_texts

pytest.importorskip("torch", reason="the export extra is not installed")


@pytest.mark.parametrize(
    ("labels", "said"), [(None, "chooses from labels; give some"), (3, "labels is 3; give a list of names")]
)
def test_labels_that_are_none(tiny_langcell: Path, labels: Any, said: str) -> None:
    cells = read_h5ad(packaged_cells())[:2].copy()
    with pytest.raises(UsageError, match=said):
        cs.load(tiny_langcell).annotate(cells, labels)


def test_misspelled_options_are_not_swallowed(tiny_langcell: Path) -> None:
    cells = read_h5ad(packaged_cells())[:2].copy()
    with pytest.raises(TypeError, match="unexpected keyword argument 'threshhold'"):
        cs.load(tiny_langcell).annotate(cells, ["B cell"], threshhold=0.9)


def test_a_text_is_not_taken_for_its_letters(tiny_langcell: Path) -> None:
    with pytest.raises(UsageError, match="texts is one text"):
        cs.load(tiny_langcell).embed_texts("monocyte")


@pytest.mark.parametrize("template", ["{name} {name.foo}", "{name} {name[a]}", "{name} {0}", "{name} {name:d}"])
def test_templates_that_cannot_be_filled(template: str) -> None:
    with pytest.raises(UsageError, match="cannot be filled"):
        label_texts(Labels(("B cell",), ("",)), template)


@pytest.mark.parametrize("text", ["abc", "-3", "2.5", ""])
def test_rerank_is_named_as_it_was_given(text: str) -> None:
    with pytest.raises(UsageError, match=f"--rerank is '{text}'"):
        rerank_of(text)
