"""Bundles that read ranks or follow instructions as services: the answers of the Python API, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from called import called, cell_bodies
from instruct_bundles import GoldenInstructCell
from starlette.testclient import TestClient

import cellscribe as cs
from cellscribe.engine.dialogue_model import DialogueModel
from cellscribe.engine.packaged import packaged_cells

LABELS = ["B cell", "T cell", "monocyte"]


@pytest.fixture(scope="module")
def ranked(tiny_langcell: Path) -> Iterator[TestClient]:
    with called(tiny_langcell) as (_, client):
        yield client


@pytest.fixture(scope="module")
def told_file(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("golden") / "cells.h5ad"
    GoldenInstructCell(shared).cells().write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def dialogue(instruct_bundle: Path, told_file: Path) -> Iterator[TestClient]:
    with called(instruct_bundle, told_file) as (_, client):
        yield client


@pytest.fixture(scope="module")
def model(instruct_bundle: Path) -> DialogueModel:
    found = cs.load(instruct_bundle)
    assert isinstance(found, DialogueModel)
    return found


def post(client: TestClient, path: str, body: Any) -> Any:
    found = client.post(f"/v1/{path}", json=body)
    assert found.status_code == 200, found.text
    return found.json()


def test_ranks_get_the_labels_of_the_python_api(ranked: TestClient, tiny_langcell: Path) -> None:
    cells = ad.read_h5ad(packaged_cells())[:1].copy()
    model = cs.load(tiny_langcell)
    bodies = cell_bodies(cells)
    told = post(
        ranked, "annotate", {"cells": [*bodies, {"id": "none", "genes": {"CD3D": 0}}], "labels": LABELS, "scores": True}
    )
    frame = model.annotate(cells, LABELS, copy=True)
    good, empty = told["results"]
    assert good["label"] == frame["label"].iloc[0]
    assert good["score"] == pytest.approx(frame["score"].iloc[0], abs=2e-6)
    assert sum(good["scores"].values()) == pytest.approx(1.0, abs=1e-5)
    assert (empty["label"], empty["score"]) == (None, None)
    assert empty["status"].startswith("failed: ")
    vectors = post(ranked, "embed", {"source": "demo", "cell_ids": [str(cells.obs_names[0])]})
    np.testing.assert_allclose(vectors["results"][0]["embedding"], model.embed(cells, copy=True)[0], atol=1e-6)


def test_ranks_take_a_file_as_body(ranked: TestClient, tmp_path: Path) -> None:
    cells = ad.read_h5ad(packaged_cells())[:3].copy()
    cells.write_h5ad(tmp_path / "few.h5ad")
    file = {"content": (tmp_path / "few.h5ad").read_bytes(), "headers": {"Content-Type": "application/x-hdf5"}}
    picked = {"source": "demo", "cell_ids": cells.obs_names.tolist()}
    for path, more in (("annotate", {"labels": LABELS}), ("embed", {})):
        found = ranked.post(f"/v1/{path}", params=more, **file)
        assert found.status_code == 200, found.text
        assert found.json()["results"] == post(ranked, path, picked | more)["results"]


def test_ranks_have_a_map_and_no_words(ranked: TestClient) -> None:
    told = ranked.get("/v1/models").json()["data"][0]
    assert told["tasks"] == ["annotate", "embed"]
    assert len(ranked.get("/v1/cells").json()["map"]["x"]) == 140
    for path in ("generate", "chat/completions", "describe"):
        found = ranked.post(f"/v1/{path}", json={})
        assert found.status_code == 404
        assert "it can annotate and embed." in found.json()["error"]["message"]
    found = ranked.post("/v1/annotate", json={"source": "demo", "cell_ids": ["x"]})
    assert found.status_code in (404, 422)


def test_ranks_need_labels(ranked: TestClient) -> None:
    found = ranked.post("/v1/annotate", json={"cells": [{"genes": {"CD3D": 3}}]})
    assert (found.status_code, "chooses from labels" in found.text) == (422, True)
    found = ranked.post("/v1/annotate", json={"cells": [{"genes": {"CD3D": 3}}], "labels": ["word " * 2000 + "."]})
    assert found.status_code == 422, found.text


def test_instructions_are_answered_as_ask_does(dialogue: TestClient, model: DialogueModel, told_file: Path) -> None:
    cells = ad.read_h5ad(told_file)
    text = "Which cell type is {cell}? Say it."
    part = {"type": "cell", "source": "demo", "cell_id": str(cells.obs_names[1])}
    body = {"messages": [{"role": "user", "content": [part, {"type": "text", "text": text}]}], "max_tokens": 24}
    told = post(dialogue, "chat/completions", body)
    wanted = model.ask(cells[1:2].copy(), text, max_new_tokens=24)
    assert told["choices"][0]["message"]["content"] == wanted["answer"][0]
    assert told["cellscribe"]["result"]["cell_id"] == cells.obs_names[1]
    odd = body | {"messages": [{"role": "user", "content": [part, {"type": "text", "text": "{cell} and {cell}"}]}]}
    assert dialogue.post("/v1/chat/completions", json=odd).status_code == 422


def test_instructions_label_cells(dialogue: TestClient, model: DialogueModel, told_file: Path) -> None:
    cells = ad.read_h5ad(told_file)
    told = post(dialogue, "annotate", {"cells": cell_bodies(cells), "labels": LABELS, "scores": True})
    frame = model.annotate(cells, LABELS, scores=True, copy=True)
    assert [one["label"] for one in told["results"]] == frame["label"].tolist()
    np.testing.assert_allclose([one["score"] for one in told["results"]], frame["score"], atol=1e-5)


def test_instructions_write_cells(dialogue: TestClient, model: DialogueModel) -> None:
    told = post(dialogue, "generate", {"cell_type": "B cell", "n": 2})
    wanted = model.generate("B cell", 2)
    assert [one["cell_id"] for one in told["results"]] == wanted.obs_names.tolist()
    row = dict(zip(wanted.var_names, wanted.X.toarray()[1].tolist(), strict=True))
    assert told["results"][1]["genes"] == {gene: count for gene, count in row.items() if count}
    assert (told["values"], told["results"][0]["sentence"]) == ("counts", None)
    for body, said in (({"n": 1}, "cell_type"), ({"cell_type": "B cell", "max_new_tokens": 10**9}, "at most")):
        refused = dialogue.post("/v1/generate", json=body)
        assert refused.status_code == 422, refused.text
        assert said in refused.text
    assert dialogue.get("/health/ready").status_code == 200


def test_instructions_have_no_vectors(dialogue: TestClient) -> None:
    found = dialogue.post("/v1/embed", json={})
    assert found.json()["error"]["message"].endswith("it can annotate and generate and chat.")
    assert dialogue.get("/v1/cells").json()["map"] is None
