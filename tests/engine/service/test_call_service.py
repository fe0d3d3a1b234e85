"""A bundle that reads sentences as a service: the answers of the Python API, and what is refused."""

from __future__ import annotations

import io
import json
from typing import Any

import anndata as ad
import numpy as np
import pytest
from called import LABELS, Served, cell_bodies, post, refused

import cellscribe as cs
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.sentence_model import SentenceModel


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    return ad.read_h5ad(packaged_cells())[:5].copy()


@pytest.fixture(scope="module")
def model() -> SentenceModel:
    found = cs.load("demo-c2s", threads=2)
    assert isinstance(found, SentenceModel)
    return found


def test_labels_are_those_of_the_python_api(served: Served, cells: ad.AnnData, model: SentenceModel) -> None:
    body = {"cells": cell_bodies(cells), "labels": dict.fromkeys(LABELS) | {"B cell": "CL:0000236"}, "scores": True}
    told = post(served[1], "annotate", body)
    frame = model.annotate(cells, labels=body["labels"], scores=True, copy=True)
    assert [one["label"] for one in told["results"]] == frame["label"].tolist()
    assert [one["cell_id"] for one in told["results"]] == cells.obs_names.tolist()
    np.testing.assert_allclose([one["score"] for one in told["results"]], frame["score"], atol=2e-6)
    for one, terms in zip(told["results"], frame["cell_ontology_term_id"], strict=True):
        assert one["cell_ontology_term_id"] == (terms or None)
        assert list(one["scores"]) == LABELS
        assert one["status"] == "ok"
    assert told["genes"]["known"] > told["genes"]["unknown"]


def test_cells_of_a_file_and_free_labels(served: Served, cells: ad.AnnData, model: SentenceModel) -> None:
    names = [*cells.obs_names[:3], cells.obs_names[0]]
    told = post(served[1], "annotate", {"source": "demo", "cell_ids": names})
    free = model.annotate(cells, copy=True)["label"]
    assert [one["label"] for one in told["results"]] == [free[name] for name in names]


def test_vectors_are_those_of_the_python_api(served: Served, cells: ad.AnnData, model: SentenceModel) -> None:
    told = post(served[1], "embed", {"cells": [*cell_bodies(cells), {"id": "none", "genes": {"CD3D": 0}}]})
    vectors = model.embed(cells, copy=True)
    found = np.array([one["embedding"] for one in told["results"][:-1]])
    np.testing.assert_allclose(found, vectors, atol=1e-6)
    assert told["dimensions"] == vectors.shape[1]
    assert told["results"][-1]["embedding"] is None
    assert told["results"][-1]["status"].startswith("failed: no gene")


def test_written_cells_are_those_of_the_python_api(served: Served, model: SentenceModel) -> None:
    like = ad.read_h5ad(packaged_cells())
    body = {"cell_type": "B cell", "n": 3, "max_new_tokens": 60, "temperature": 0.7, "top_p": 0.9}
    wanted = model.generate("B cell", 3, like=like, max_new_tokens=60)
    told = post(served[1], "generate", body)
    assert [one["sentence"] for one in told["results"]] == wanted.obs["cell_sentence"].tolist()
    row = dict(zip(wanted.var_names, wanted.X.toarray()[0].tolist(), strict=True))
    assert told["results"][0]["genes"] == pytest.approx({gene: x for gene, x in row.items() if x}, abs=1e-6)
    file = served[1].post("/v1/generate", json=body, headers={"Accept": "application/x-hdf5"})
    found = ad.read_h5ad(io.BytesIO(file.content))
    np.testing.assert_array_equal(found.X.toarray(), wanted.X.toarray())
    assert found.uns["cellscribe"]["cell_type"] == "B cell"


def test_a_question_is_answered_as_ask_does(served: Served, cells: ad.AnnData, model: SentenceModel) -> None:
    text = "Which cell type is {cell}? Write {JSON}."
    part = {"type": "cell", "cell": cell_bodies(cells)[0]}
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": text}, part]}], "max_tokens": 20}
    told = post(served[1], "chat/completions", body)
    wanted = model.ask(cells[:1], "Which cell type is {cell_sentence}? Write {{JSON}}.", max_new_tokens=20)
    assert told["choices"][0]["message"]["content"] == wanted["answer"][0]
    assert told["choices"][0]["finish_reason"] == wanted["finish_reason"][0]
    assert told["usage"]["prompt_tokens"] > 20
    assert told["usage"]["completion_tokens"] <= 20
    stream = served[1].post("/v1/chat/completions", json=body | {"stream": True}).text
    events = [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    pieces = [json.loads(one)["choices"][0]["delta"].get("content", "") for one in events[:-1]]
    assert "".join(pieces) == wanted["answer"][0]


def test_what_it_can_do_is_told(served: Served) -> None:
    told = served[1].get("/v1/models").json()["data"][0]
    assert (told["family"], told["tasks"]) == ("c2s", ["annotate", "embed", "generate", "chat"])
    status, message = refused(served[1], "describe", {"cells": [{"genes": {"CD3D": 1}}]})
    assert (status, message) == (
        404,
        "the bundle demo-c2s does not describe; it can annotate and embed and generate and chat.",
    )
    paths = served[1].get("/openapi.json").json()["paths"]
    assert "requestBody" in paths["/v1/annotate"]["post"]
    assert "/v1/describe" not in paths


def test_a_listing_has_a_map(served: Served) -> None:
    told = served[1].get("/v1/cells").json()
    assert told["n_cells"] == len(told["ids"]) == len(told["map"]["x"])
    assert told["groups"]["column"] == "cell_type_reference"
    assert told["genes"]["known"] > 700


def test_an_upload_is_labelled(served: Served, cells: ad.AnnData) -> None:
    raw = packaged_cells().read_bytes()
    told = served[1].post("/v1/uploads?name=a.h5ad", content=raw, headers={"Content-Type": "application/x-hdf5"})
    assert told.status_code == 201
    body = {"source": told.json()["source"], "cell_ids": [cells.obs_names[1]], "labels": LABELS}
    assert post(served[1], "annotate", body)["results"][0]["label"] in LABELS
    assert served[1].delete(f"/v1/uploads/{told.json()['source']}").status_code == 204


CELL = {"genes": {"CD3D": 4, "CD8A": 1}}
SAID = {"role": "user", "content": "Which type?"}


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("annotate", {"cells": [CELL], "labels": ["B cell", "b  cell"]}, 422, "differ in case"),
        ("annotate", {"cells": [CELL], "labels": []}, 422, "no labels"),
        ("annotate", {"cells": [CELL], "labels": {"B cell": "7"}}, 422, "none of the Cell Ontology"),
        ("annotate", {"cells": [CELL], "scores": True}, 422, "need a list"),
        ("annotate", {"cells": [CELL], "labels": [f"t{i}" for i in range(2001)]}, 413, "2001 labels"),
        ("annotate", {"cells": [CELL] * 257}, 413, "257 cells"),
        ("annotate", {"cells": [CELL, CELL | {"id": "cell-0"}]}, 422, "two cells are named"),
        ("annotate", {"cells": [{"genes": {"CD3D": -1}}]}, 422, "not negative"),
        ("annotate", {"cells": [{"genes": {"CD3D": 1e300}}]}, 422, "larger than float32"),
        ("annotate", {"cells": [{"genes": {}}]}, 422, "no cell names a gene"),
        ("annotate", {"cells": [{"genes": {"CD3D": 1, "cd3d": 2}}]}, 422, "CD3D"),
        ("annotate", {"cells": [{"genes": {"a b": 1}}]}, 422, "cannot be one word"),
        ("annotate", {"cells": [CELL], "model": "other"}, 404, "the model 'other'"),
        ("annotate", {"cells": [{"indices": [0, 0], "values": [1, 2]}], "gene_names": ["CD3D"]}, 422, "twice"),
        ("annotate", {"cells": [{"genes": {"CD3D": 200.5}}]}, 422, "counts"),
        ("annotate", {"source": "demo", "cell_ids": ["nobody"]}, 404, "nobody"),
        ("annotate", {"source": "up-1", "cell_ids": ["nobody"]}, 404, "no file 'up-1'"),
        ("embed", {"cells": []}, 422, "at least 1"),
        ("generate", {"n": 257}, 413, "257 cells"),
        ("generate", {"tissue": "blood"}, 422, "tissue"),
        ("generate", {"cell_type": " "}, 422, "empty"),
        ("generate", {"temperature": 0, "top_p": 0.5}, 422, "no effect"),
        ("generate", {"temperature": 0.001}, 422, "temperature"),
        ("generate", [], 422, "the body"),
        ("chat/completions", {"messages": [{"role": "user", "content": "x"}]}, 422, "no message has a cell"),
        ("chat/completions", {"messages": [{"role": "user"}], "cell": CELL}, 422, "no text"),
        ("chat/completions", {"messages": [SAID], "cell": {"genes": {"CD3D": 0}}}, 422, "no gene"),
        ("chat/completions", {"messages": [{"role": "user", "content": "x <|endoftext|>"}], "cell": CELL}, 422, "sign"),
    ],
)  # fmt: skip
def test_bad_requests_get_a_sentence(served: Served, path: str, body: Any, status: int, said: str) -> None:
    found = refused(served[1], path, body)
    assert found[0] == status, found
    assert said in found[1]
    assert served[0].desk.is_ready
