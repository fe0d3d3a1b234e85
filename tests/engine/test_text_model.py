"""Cells as sentences to answers: prompts, labels, failures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData

from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.cells import open_cells
from cellscribe.engine.errors import BackendError, BundleError, UsageError
from cellscribe.engine.packaged import packaged_bundle
from cellscribe.engine.sentences.templates import digest, read_templates
from cellscribe.engine.text_model import TextModel
from cellscribe.engine.text_types import TextSettings

LABELS = ("B cell", "CD4 T cell", "CD8 T cell", "monocyte")


@pytest.fixture
def bundle(c2s_bundle: Path) -> Bundle:
    """A golden checkpoint of random weights."""
    return open_bundle(c2s_bundle)


def cells(num_cells: int = 12) -> AnnData:
    counts = np.random.default_rng(0).poisson(0.7, (num_cells, 60)).astype(np.float32)
    counts[3:4] = 0
    found = AnnData(sp.csr_matrix(counts))
    found.obs_names, found.var_names = ([f"{kind}{i}" for i in range(n)] for kind, n in (("c", num_cells), ("G", 60)))
    return found


def model(bundle: Bundle, backend: str = "onnxruntime-cpu", **settings: object) -> TextModel:
    return TextModel(bundle, 2, backend, settings=TextSettings(**{"num_genes": 15, **settings}))  # type: ignore[arg-type]


def test_labels_do_not_depend_on_batch_order_or_backend(bundle: Bundle, native_library: None) -> None:
    with open_cells(cells()) as source:
        first = model(bundle).about_cells(source, labels=LABELS, batch_size=4)
        for backend, size, rows in (("onnxruntime-cpu", 1, None), ("cpu", 5, None), ("cpu", 3, np.arange(12)[::-1])):
            found = model(bundle, backend).about_cells(source, labels=LABELS, batch_size=size, rows=rows)
            if rows is not None:
                found = found[::-1]
            assert [one.text for one in found] == [one.text for one in first]
            assert [one.name for one in found] == [f"c{i}" for i in range(12)]
    assert {one.text for i, one in enumerate(first) if i != 3} <= set(LABELS)
    assert first[3].status == "failed: no gene is expressed in it"


def test_free_answers_and_what_does_not_fit(bundle: Bundle) -> None:
    with open_cells(cells(4)) as source:
        found = model(bundle).about_cells(source, max_new_tokens=6)
        assert all(len(one.token_ids) <= 6 for one in found)
        assert found[0].status == "ok"
        long = model(bundle).about_cells(source, max_new_tokens=1020)
    assert "exceed the context of 1024; choose fewer genes (--genes-per-cell" in long[0].status


def test_prompts_are_drawn_by_name(bundle: Bundle) -> None:
    with open_cells(cells()) as source:
        fixed = model(bundle).about_cells(source, max_new_tokens=3)
        drawn = model(bundle, template=None).about_cells(source, max_new_tokens=3)
        again = model(bundle, template=None).about_cells(source, max_new_tokens=3, rows=np.array([5]))
    assert drawn[5] == again[0]
    assert [one.token_ids for one in fixed] != [one.token_ids for one in drawn]


def test_what_cannot_be_asked(bundle: Bundle) -> None:
    with open_cells(cells(2)) as source:
        with pytest.raises(UsageError, match="'B cell' is there twice"):
            model(bundle).about_cells(source, labels=("B cell", "T cell", " B cell"))
        with pytest.raises(UsageError, match="no labels"):
            model(bundle).about_cells(source, labels=())
        with pytest.raises(UsageError, match="the task 'x' is not known"):
            model(bundle).about_cells(source, "x")
        with pytest.raises(UsageError, match="prompts 0 to 2"):
            model(bundle, template=9).about_cells(source)
        with pytest.raises(UsageError, match="batch_size is 0"):
            model(bundle).about_cells(source, batch_size=0)
        with pytest.raises(UsageError, match=r"\{num_cells\}"):
            model(bundle).about_cells(source, "tissue_cells_generation")
    with pytest.raises(BackendError, match="the backend cuda cannot run here: its kernels are those of LingoCell"):
        model(bundle, "cuda")
    with pytest.raises(BundleError, match="reads no sentences"):
        TextModel(open_bundle(packaged_bundle()))


def test_templates_of_a_user_are_kept_and_misspelt_tasks_said(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "templates.json"
    one = {"prompts": ["{cell_sentence} ->"], "answer": "{cell_type}"}
    path.write_text(json.dumps({"cell_type_prediction": one, "cell_type_predictions": one}))
    plain, given = (
        TextModel(bundle, 2, "onnxruntime-cpu", templates, TextSettings(num_genes=15)) for templates in (None, path)
    )
    assert "templates_hash" not in plain.settings_of(None)
    assert given.settings_of(None)["templates_hash"] == digest(read_templates(path))
    with open_cells(cells(2)) as source:
        for model_of in (plain, given):
            model_of.about_cells(source, labels=LABELS)
    assert not plain.notice
    assert "'cell_type_predictions' (is 'cell_type_prediction' meant?)" in given.notice
