"""The front door of bundles that read sentences: cs.load, and what it returns."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

import cellscribe as cs
from cellscribe.engine.cells import open_cells
from cellscribe.engine.errors import BundleError, InputError, UsageError
from cellscribe.engine.sentences import Inverse
from cellscribe.engine.text_embed import embed_cells
from cellscribe.engine.text_model import TextModel

LABELS = {"B cell": "CL:0000236", "monocyte": None}


@pytest.fixture
def cells() -> AnnData:
    counts = np.random.default_rng(0).poisson(0.9, (12, 40)).astype(np.float32)
    counts[3] = 0
    found = AnnData(sp.csr_matrix(counts))
    found.obs_names, found.var_names = ([f"{kind}{i}" for i in range(n)] for kind, n in (("c", 12), ("G", 40)))
    found.obs["half"] = pd.Categorical(["x", "y"] * 6)
    return found


@pytest.fixture
def model(c2s_bundle: Path) -> cs.SentenceModel:
    found = cs.load(c2s_bundle, backend="onnxruntime-cpu", genes_per_cell=8, threads=1)
    assert isinstance(found, cs.SentenceModel)
    return found


def test_cells_are_an_object_a_file_or_a_source(model: cs.SentenceModel, cells: AnnData, tmp_path: Path) -> None:
    cells.write_h5ad(tmp_path / "cells.h5ad")
    frame = model.annotate(cells, LABELS, batch_size=4)
    assert set(frame["label"][frame["status"] == "ok"]) <= set(LABELS)
    assert frame.loc["c3", "status"] == "failed: no gene is expressed in it"
    assert cells.obs["cellscribe_label"].dropna().tolist() == [one for one in frame["label"] if one]
    assert "cellscribe_cell_ontology_term_id" in cells.obs
    (tmp_path / "labels.tsv").write_text("B cell\tCL:0000236\nmonocyte\n")
    pd.testing.assert_frame_equal(model.annotate(str(tmp_path / "cells.h5ad"), tmp_path / "labels.tsv"), frame)
    with open_cells(tmp_path / "cells.h5ad") as source:
        pd.testing.assert_frame_equal(model.annotate(source, LABELS), frame)
        assert source.n_cells == 12
        next(source.blocks())  # still open
        with pytest.raises(UsageError, match="opened already"):
            model.annotate(source, LABELS, layer="X")
    left = cells.copy()
    model.annotate(cells, ["a b", "c d"], key_added="other", copy=True)
    assert list(cells.obs) == list(left.obs)


def test_vectors_are_kept_and_depend_on_no_other_cell(model: cs.SentenceModel, cells: AnnData) -> None:
    vectors = model.embed(cells)
    assert vectors.shape == (12, 64)
    np.testing.assert_array_equal(cells.obsm["X_cellscribe"], vectors)
    assert "own tokens" not in cells.uns["cellscribe_embedding"]["pooling"]
    assert cells.uns["cellscribe_embedding"]["pooling"] == "mean of the last states over the prompt's tokens"
    assert np.isnan(vectors[3]).all()
    np.testing.assert_array_equal(model.embed(cells[7].copy())[0], vectors[7])
    np.testing.assert_array_equal(model.embed(cells[::-1].copy())[::-1], vectors)
    kept = cells.copy()
    model.embed(cells, key_added="mine", copy=True)
    assert list(cells.obsm) == list(kept.obsm)


def test_upstream_padding_is_asked_for_by_name(
    model: cs.SentenceModel, c2s_bundle: Path, native_library: None, cells: AnnData
) -> None:
    plain, one = model.embed(cells, copy=True), model.embed(cells, upstream_padding=1, copy=True)
    np.testing.assert_allclose(one, plain, atol=5e-5)  # a prompt alone has no padding
    four = model.embed(cells, upstream_padding=4)
    assert np.nanmax(np.abs(four - plain)) > 0.05
    assert cells.uns["cellscribe_embedding"]["pooling"].endswith("prompts in batches of 4, padded")
    kept = [i for i in range(12) if i != 3]
    names, sentences = ([], [])
    with open_cells(cells) as source:
        names, sentences = model.text.sentences(source)
    prompts = model.text._prompts("cell_type_prediction", names, sentences)
    batch = model.text.encode([prompts[i] for i in kept[4:8]])
    np.testing.assert_array_equal(model.text.embed_padded(batch), four[kept[4:8]])
    auto = cs.load(c2s_bundle, genes_per_cell=8, threads=1)
    np.testing.assert_allclose(auto.embed(cells, upstream_padding=4, copy=True), four, atol=1e-5)
    with pytest.raises(cs.CellscribeError, match="the backend cpu does not pad prompts"):
        cs.load(c2s_bundle, backend="cpu").embed(cells, upstream_padding=4)
    for count in (0, 513):
        with pytest.raises(UsageError, match=f"is {count}; choose a batch"):
            model.embed(cells, upstream_padding=count)


def test_progress_and_chunks_of_embedding(
    model: cs.SentenceModel, cells: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, seen = model.embed(cells, copy=True), list[tuple[int, int, int]]()
    monkeypatch.setattr("cellscribe.engine.text_embed._CHUNK", 5)
    with open_cells(cells) as source:
        run = embed_cells(model.text, source, progress=lambda *now: seen.append(now))
        some = embed_cells(model.text, source, rows=np.array([8, 3, 1]))
    np.testing.assert_array_equal(run.embeddings, whole)
    np.testing.assert_array_equal(some.embeddings, whole[[8, 3, 1]])
    assert some.names == ("c8", "c3", "c1")
    assert [one.status for one in some.failed] == ["failed: no gene is expressed in it"]
    assert [one[0] for one in seen] == sorted(one[0] for one in seen)
    assert seen[-1] == (12, 12, 0)


def test_a_device_that_gives_up_leaves_what_is_finished(
    model: cs.SentenceModel, cells: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cellscribe.engine.errors import BackendError

    whole, run, calls = model.embed(cells, copy=True), TextModel.embed_prompts, list[int]()

    def failing(self: TextModel, prompts: list[np.ndarray], *more: object) -> np.ndarray:
        calls.append(len(prompts))
        if len(calls) > 1:
            raise BackendError("the device is gone.")
        return run(self, prompts, *more)  # type: ignore[arg-type]

    monkeypatch.setattr("cellscribe.engine.text_embed._CHUNK", 5)
    monkeypatch.setattr(TextModel, "embed_prompts", failing)
    with open_cells(cells) as source:
        found = embed_cells(model.text, source)
        assert "8 of 12 cells could not be embedded" in found.failure_sentence()
        assert "the device is gone (c5, c6, c7 and 4 more)" in found.failure_sentence()
        np.testing.assert_array_equal(found.embeddings[:5], whole[:5])  # type: ignore[index]
        with pytest.raises(BackendError, match="gone"):
            embed_cells(model.text, source)


def test_questions(model: cs.SentenceModel, cells: AnnData) -> None:
    found = model.ask(cells, "Is it dividing?", limit=2, max_new_tokens=3)
    assert list(found) == ["name", "answer", "logprob", "finish_reason", "status"]
    assert found["name"].tolist() == ["c0", "c1"]
    assert model.text.notice.endswith("2 of 2 answers were cut off at 3 tokens; allow more (--max-new-tokens, "
                                      "max_new_tokens).")  # fmt: skip
    drawn = model.ask(cells, "Is it dividing?", limit=2, max_new_tokens=3, temperature=5.0, top_p=1.0)
    assert drawn["logprob"].tolist() != found["logprob"].tolist()
    groups = model.ask(
        cells, task="tissue_prediction", by="half", group_cells=5, labels=["blood", "liver"], fields={}, batch_size=2
    )
    assert groups["name"].tolist() == ["x", "y"]
    for name, members in zip(groups["name"], groups["cells"], strict=True):
        drawn = members.split("\n")
        assert 4 <= len(set(drawn)) <= 5  # one of all cells expresses nothing
        assert set(cells.obs.loc[drawn, "half"]) == {name}
    assert set(groups["answer"]) <= {"blood", "liver"}
    for given, said in (
        ({}, "a question or --task"),
        ({"question": "Why?", "by": "half"}, "needs a task"),
        ({"task": "tissue_prediction"}, "is about groups of cells"),
        ({"task": "cell_type_prediction", "by": "half"}, "is not about groups"),
        ({"question": "Why?", "fields": {"tissue": "x"}}, "'tissue', which the prompt has no place for"),
        ({"question": "{tissue}", "fields": {"num_cells": "x"}}, "what can be set: tissue"),
        ({"question": "Why?", "max_new_tokens": 1024}, "max_new_tokens is 1024, and the context"),
        ({"question": "Why?", "labels": ["x", "y " * 2000]}, "a label has .* tokens, and the context"),
        ({"question": "Why?", "labels": ["x", "y"], "temperature": 1.0}, "labels are not drawn"),
    ):
        with pytest.raises(UsageError, match=said):
            model.ask(cells, **given)  # type: ignore[arg-type]


def test_a_task_about_no_cells_is_answered_once(model: cs.SentenceModel, cells: AnnData) -> None:
    genes = {"genes": "CD3D CD3E"}
    once = model.ask(None, task="gene_set_name", fields=genes, max_new_tokens=3)
    assert once["name"].tolist() == ["gene_set_name"]
    assert once.equals(model.ask(cells, task="gene_set_name", fields=genes, limit=3, max_new_tokens=3))
    assert len(model.ask(None, task="cells_generation", fields={"num_cells": "5"}, max_new_tokens=3)) == 1
    for given, said in (
        ({"question": "Why?"}, "is about cells, and none are given"),
        ({"task": "cell_type_prediction"}, "is about cells, and none are given"),
        ({"task": "gene_set_name"}, r"needs a value for \{genes\}"),
        ({"task": "gene_set_name", "by": "half"}, "is not about groups"),
    ):
        with pytest.raises(UsageError, match=said):
            model.ask(None, **given)  # type: ignore[arg-type]


def test_cells_are_written(model: cs.SentenceModel, cells: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    from cellscribe.engine.text_types import Answer

    def answers(_: TextModel, names: list[str], texts: list[str], **given: object) -> tuple[Answer, ...]:
        return tuple(Answer(name, "G1 G2 nothing", (1,), -1.0, "stop") for name in names)

    monkeypatch.setattr(TextModel, "answers", answers)
    for given in ({"like": cells}, {"genes": [f"G{i}" for i in range(40)], "fit": Inverse(-0.5, 1.5)}):
        made = model.generate("B cell", 3, **given)  # type: ignore[arg-type]
        assert made.shape == (3, 40)
        assert set(made.obs["cell_type"]) == {"B cell"}
        assert (made[:, ["G1", "G2"]].X > 0).sum() == 6
    made = model.generate(n=2, cells_per_sample=5, tissue="blood", like=cells)
    assert made.obs["sample"].tolist() == ["sample_0", "sample_1"]
    for bad in ({}, {"like": cells, "fit": Inverse(-0.5, 1)}, {"genes": ["G1"]}):
        with pytest.raises(UsageError, match="needs genes and a line"):
            model.generate(**bad)  # type: ignore[arg-type]
    cells.X = sp.csr_matrix(np.zeros((12, 40), np.float32))
    with pytest.raises(InputError, match="expresses a gene"):
        model.generate(like=cells)


@pytest.mark.parametrize("count", [0, -5, 2.5])
def test_texts_of_less_than_one_token_are_refused(model: cs.SentenceModel, cells: AnnData, count: Any) -> None:
    given = {"genes": ["G1"], "fit": Inverse(-0.5, 1.5)}
    for call in (
        lambda: model.annotate(cells, max_new_tokens=count),
        lambda: model.annotate(cells, LABELS, max_new_tokens=count),
        lambda: model.ask(cells, "Why?", max_new_tokens=count),
        lambda: model.ask(None, task="gene_set_name", fields={"genes": "CD3D"}, max_new_tokens=count),
        lambda: model.generate("B cell", 2, max_new_tokens=count, **given),
        lambda: model.generate(n=2, cells_per_sample=5, max_new_tokens=count, **given),
    ):
        with pytest.raises(UsageError, match=f"max_new_tokens is {count}; choose a whole number, at least 1"):
            call()


def test_signs_of_the_tokenizer_are_no_texts(model: cs.SentenceModel, cells: AnnData) -> None:
    end, given = "<|endoftext|>", {"genes": ["G1"], "fit": Inverse(-0.5, 1.5)}
    for labels in (["x", f"x{end}"], ["<|padding|>", "x"], ["x", f"{end} y"]):
        for scores in (False, True):
            with pytest.raises(UsageError, match="holds a token that is no text to the model but a sign; rename it"):
                model.annotate(cells, labels, scores=scores)
    for call, said in (
        (lambda: model.ask(cells, f"Why?{end}"), "the question"),
        (lambda: model.ask(cells, "{tissue}", fields={"tissue": end}), "the value of tissue"),
        (lambda: model.generate(f"B{end} cell", 2, **given), "the value of cell_type"),
        (lambda: model.generate(n=2, cells_per_sample=5, abstract=f"{end}We", **given), "the value of abstract"),
    ):
        with pytest.raises(UsageError, match=f"{said} holds <.endoftext.>, which is no text to the model"):
            call()
    upper = model.text.bundle.tokenizer
    upper.add_special_tokens(["<X>"])
    named = cells.copy()
    named.var_names = ["a<x>", *cells.var_names[1:]]
    model.text.__dict__.pop("_reserved", None)
    with pytest.raises(UsageError, match="a gene name of the AnnData object holds <X>"):
        model.annotate(named, LABELS)


def test_what_a_family_lacks_says_what_to_use(model: cs.SentenceModel, cells: AnnData) -> None:
    other = cs.load("demo", backend="onnxruntime-cpu")
    for name in ("describe", "stream"):
        with pytest.raises(BundleError, match=f"does not {name}; use annotate, ask, generate or embed"):
            getattr(model, name)(cells)
    for name in ("annotate", "ask", "generate"):
        with pytest.raises(BundleError, match=f"does not {name}; use describe, stream or embed, or choose a bundle"):
            getattr(other, name)(cells)
    every = {name for kind in (cs.Model, cs.SentenceModel) for name, _ in inspect.getmembers(kind, inspect.isfunction)}
    for name in {"annotate", "ask", "generate", "describe", "stream", "embed"}:
        assert name in every


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hvg": ["CD3D"]}, "reads sentences of all genes"),
        ({"plans": "nowhere"}, "nowhere"),
        ({"threads": 0}, "threads is 0"),
        ({"template": "x"}, "template is 'x'"),
        ({"backend": "x"}, "backend is 'x'"),
    ],
)
def test_what_cannot_be_loaded(c2s_bundle: Path, options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        cs.load(c2s_bundle, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="reads no sentences; leave organism"):
        cs.load("demo", organism="mouse")


def test_what_is_no_cells(model: cs.SentenceModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the cells are ndarray"):
        model.embed(np.ones((2, 3)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"no file .*none\.h5ad"):
        model.embed(tmp_path / "none.h5ad")
    with pytest.raises(UsageError, match="key_added"):
        model.embed(tmp_path / "none.h5ad", key_added="a/b")
