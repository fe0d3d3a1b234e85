"""An .h5ad file as the body: all its cells, and the options in the query."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import pytest
from called import called
from running_service import Running, assert_sentence
from starlette.testclient import TestClient

from cellscribe.engine.service.calling import CallService

HDF5 = {"Content-Type": "application/x-hdf5"}
LABELS = ["B cell", "CD14-positive monocyte", "CD4-positive, alpha-beta T cell"]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[CallService, TestClient]]:
    with called("demo-c2s") as found:
        yield found


@pytest.fixture(scope="module")
def six(cells: ad.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bodies") / "six.h5ad"
    cells[:6].copy().write_h5ad(path)
    return path


def post(client: TestClient, path: str, file: Path | bytes, **query: Any) -> Any:
    raw = file if isinstance(file, bytes) else file.read_bytes()
    return client.post(f"/v1/{path}", content=raw, headers=HDF5, params=query)


def results(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def test_cells_of_a_file_are_labelled(served: tuple[CallService, TestClient], six: Path, cells: ad.AnnData) -> None:
    client, names = served[1], cells.obs_names[:6].tolist()
    picked = {"source": "demo", "cell_ids": names, "labels": LABELS, "scores": True}
    wanted = results(client.post("/v1/annotate", json=picked))
    assert results(post(client, "annotate", six, labels=LABELS, scores=True, deadline_s=60, values="counts")) == wanted
    free = results(client.post("/v1/annotate", json={"source": "demo", "cell_ids": names, "max_new_tokens": 8}))
    assert results(post(client, "annotate", six, max_new_tokens=8)) == free
    assert [one["cell_id"] for one in free] == names


def test_cells_of_a_file_are_embedded(served: tuple[CallService, TestClient], six: Path, cells: ad.AnnData) -> None:
    names = cells.obs_names[:6].tolist()
    wanted = results(served[1].post("/v1/embed", json={"source": "demo", "cell_ids": names}))
    assert results(post(served[1], "embed", six)) == wanted


def test_a_bundle_with_an_encoder_embeds_a_file_too(running: Running, six: Path, cells: ad.AnnData) -> None:
    names = cells.obs_names[:6].tolist()
    wanted = running.post("/v1/embed", {"source": "demo", "cell_ids": names}).json
    found = running.post("/v1/embed?values=auto&model=demo", six.read_bytes(), headers=HDF5).json
    assert found["results"] == wanted["results"]
    assert (found["object"], found["id"][:10]) == ("embedding.list", "embedding-")
    assert found["genes"]["known"] == wanted["genes"]["known"]


@pytest.mark.parametrize("path", ["annotate", "embed"])
@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"model": "other"}, 404, "the model 'other'"),
        ({"values": "fractions"}, 422, "values"),
        ({"deadline_s": 0}, 422, "greater than 0"),
        ({"cells": "1"}, 422, "cells"),
        ({"top_genes": 3}, 422, "top_genes"),
        ({"deadline_s": [5, 6]}, 400, "stands 2 times"),
    ],
)
def test_options_are_as_strict_as_those_of_describe(
    served: tuple[CallService, TestClient], six: Path, path: str, query: Any, status: int, words: str
) -> None:
    found = post(served[1], path, six, **query)
    assert (found.status_code, words in found.json()["error"]["message"]) == (status, True), found.text
    assert_sentence(found.json()["error"]["message"])


def test_labels_beside_a_file_are_as_strict_as_in_a_body(served: tuple[CallService, TestClient], six: Path) -> None:
    for query, status, words in (
        ({"labels": ["B cell", "b  cell"]}, 422, "differ in case"),
        ({"labels": ["B cell", "B cell"]}, 422, "B cell"),
        ({"labels": LABELS, "max_new_tokens": 5}, 422, "own words"),
        ({"scores": True}, 422, "need a list"),
    ):
        found = post(served[1], "annotate", six, **query)
        assert (found.status_code, words in found.text) == (status, True), found.text


@pytest.mark.parametrize("path", ["annotate", "embed"])
def test_files_that_are_none_or_too_large_are_refused_and_gone(six: Path, path: str) -> None:
    with called("demo-c2s", cells=4, upload_bytes=six.stat().st_size) as (service, client):
        for body, status, words in (
            (six, 413, "6 cells, more than 4"),
            (six.read_bytes() + b"0", 413, "larger than"),
            (b"junk", 422, "no HDF5 file"),
            (six.read_bytes()[:3_000], 422, "upload.h5ad"),
        ):
            found = post(client, path, body)
            assert (found.status_code, words in found.text) == (status, True), found.text
            assert_sentence(found.json()["error"]["message"])
        assert list(Path(service.files._folder.name).iterdir()) == []
        assert service.desk.is_ready


def test_a_file_is_no_body_of_other_tasks(served: tuple[CallService, TestClient], six: Path) -> None:
    for path in ("generate", "chat/completions"):
        assert post(served[1], path, six).status_code == 415
    assert post(served[1], "describe", six).status_code == 404


def test_too_many_cells_of_a_file_to_embed(serving: Callable[..., Running], six: Path) -> None:
    found = serving(cells=4).post("/v1/embed", six.read_bytes(), headers=HDF5)
    assert (found.status, "6 cells" in found.message) == (413, True)
