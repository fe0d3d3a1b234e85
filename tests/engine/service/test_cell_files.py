from __future__ import annotations

import contextlib
import http.client
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from picking import HDF5, folder_of, upload
from running_service import Running, assert_sentence, parsed_events

from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.service.cell_files import file_name


@pytest.fixture
def strange_path(tmp_path: Path, cells: ad.AnnData) -> Path:
    """Cells with a map of their own, and columns of every kind."""
    few = cells[:4].copy()
    few.obsm["X_umap"] = np.arange(8, dtype=np.float32).reshape(4, 2)
    few.obs["whole"] = pd.array([1, None, 3, 3], dtype="Int64")
    few.obs["yes"] = pd.array([True, None, False, True], dtype="boolean")
    few.obs["number"] = [0.5, np.nan, 0.5, 1.0]
    few.obs["kind"] = pd.Categorical(["b", None, "a", "b"])
    few.write_h5ad(tmp_path / "strange.h5ad")
    return tmp_path / "strange.h5ad"


def test_the_packaged_cells_can_be_picked_from(running: Running) -> None:
    told = running.get("/v1/cells?source=demo").json
    assert (told["source"], told["name"], told["is_truncated"], told["expires_s"]) == (
        "demo",
        "cells.h5ad",
        False,
        None,
    )
    assert told["n_cells"] == len(told["ids"]) == len(set(told["ids"]))
    assert told["map"]["kind"] == "PCA of vectors"
    assert len(told["map"]["x"]) == len(told["map"]["y"]) == told["n_cells"]
    assert np.isfinite([told["map"]["x"], told["map"]["y"]]).all()
    assert np.std(told["map"]["x"]) >= np.std(told["map"]["y"]) > 0
    groups = told["groups"]
    assert groups["column"] in told["columns"]
    assert groups["names"] == sorted(groups["names"])
    reference = ad.read_h5ad(packaged_cells()).obs[groups["column"]].astype(str).tolist()
    assert [groups["names"][i] for i in groups["of"]] == reference
    assert told["genes"]["known"] > 0
    assert told == running.get("/v1/cells").json


def test_an_upload_can_be_picked_from_and_deleted(running: Running, cells_path: Path, described: pd.DataFrame) -> None:
    before = running.figure("cellscribe_uploads")
    sent = upload(running, cells_path, "?name=my%20cells.h5ad")
    assert sent.status == 201
    source = sent.json["source"]
    assert source.startswith("up-")
    assert (sent.json["name"], sent.json["expires_s"], sent.json["n_cells"]) == ("my cells.h5ad", 3600, 24)
    assert running.get(f"/v1/cells?source={source}").json == sent.json
    assert running.figure("cellscribe_uploads") == before + 1
    picked = sent.json["ids"][3]
    told = running.post("/v1/describe", {"source": source, "cell_ids": [picked], "max_new_tokens": 32}).json
    assert told["results"][0]["text"] == described.loc[picked, "description"]
    assert running.call("DELETE", f"/v1/uploads/{source}").status == 204
    for found in (running.call("DELETE", f"/v1/uploads/{source}"), running.get(f"/v1/cells?source={source}")):
        assert found.status == 404
        assert_sentence(found.message)
    assert running.figure("cellscribe_uploads") == before
    assert list(folder_of(running).iterdir()) == []


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("my cells.h5ad", "my cells.h5ad"),
        ("细胞 'a' $HOME.h5ad", "细胞 'a' $HOME.h5ad"),
        ("\0\n../../x.h5ad", "x.h5ad"),
        ("C:\\data\\x.h5ad", "x.h5ad"),
        ("/etc/a\x1b[2Jb\u202e\r\n.h5ad ", "a[2Jb.h5ad"),
        *((empty, "upload.h5ad") for empty in ("", " ", ".", "..", "a/..", "folder/", "\0\n", "\u200b")),
        (300 * "n" + ".h5ad", 195 * "n" + ".h5ad"),
        (300 * "n", 200 * "n"),
    ],
)
def test_names_of_files_are_theirs_alone(given: str, name: str) -> None:
    assert file_name(given) == name
    assert file_name(name) == name


def test_uploads_are_called_by_the_last_part_of_their_name(running: Running, cells_path: Path) -> None:
    for query, name in (
        ("?name=%00%0a..%2f..%2fx.h5ad", "x.h5ad"),
        ("?name=", "upload.h5ad"),
        ("", "upload.h5ad"),
        (f"?name={'d' * 250}/{'n' * 250}.h5ad", 195 * "n" + ".h5ad"),
    ):
        sent = upload(running, cells_path, query)
        assert (sent.status, sent.json["name"]) == (201, name)
        running.call("DELETE", f"/v1/uploads/{sent.json['source']}")
    refused = running.post("/v1/uploads?name=%0a..%2fx.h5ad", b"junk", headers=HDF5)
    assert refused.message.startswith("x.h5ad is no HDF5 file")
    assert list(folder_of(running).iterdir()) == []


def test_options_that_nobody_reads_are_refused(running: Running, cells_path: Path) -> None:
    for found, param, known in (
        (upload(running, cells_path, "?value=lognorm"), "value", "name or values"),
        (upload(running, cells_path, "?name=a.h5ad&source=demo"), "source", "name or values"),
        (running.get("/v1/cells?Source=demo"), "Source", "source or column"),
        (running.get("/v1/cells?source=demo&columns%0A=cell_type"), "columns", "source or column"),
        (running.get("/v1/cells?="), "", "source or column"),
        (running.get("/v1/cells?" + 300 * "a" + "=1"), 200 * "a", "source or column"),
    ):
        assert (found.status, found.json["error"]["param"]) == (422, param), found.body
        assert_sentence(found.message)
        assert f"give {known}" in found.message
        assert len(found.message) < 250
    assert list(folder_of(running).iterdir()) == []


def test_a_file_as_the_body_is_described_and_forgotten(
    running: Running, cells_path: Path, described: pd.DataFrame
) -> None:
    found = running.post("/v1/describe?max_new_tokens=32&top_genes=3", cells_path.read_bytes(), headers=HDF5)
    assert found.status == 200
    assert {x["cell_id"]: x["text"] for x in found.json["results"]} == described["description"].to_dict()
    assert [len(one["top_genes"]) for one in found.json["results"]] == [3] * 24
    assert running.figure("cellscribe_uploads") == 0
    assert list(folder_of(running).iterdir()) == []
    events = [name for name, _ in _stream(running, cells_path)]
    assert events.count("result") == 24
    assert events[-1] == "done"
    other = running.post("/v1/describe?model=other", cells_path.read_bytes(), headers=HDF5)
    assert (other.status, other.json["error"]["param"]) == (404, "model")


def _stream(running: Running, path: Path) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/describe?max_new_tokens=2&stream=true", path.read_bytes(), HDF5)
        yield from parsed_events(iter(connection.getresponse().readline, b""))


def test_maps_and_columns_of_every_kind(running: Running, strange_path: Path) -> None:
    sent = upload(running, strange_path)
    assert sent.status == 201, sent.body
    assert sent.json["map"] == {"kind": "UMAP", "x": [0, 2, 4, 6], "y": [1, 3, 5, 7]}
    expected = {
        "whole": ["1.0", "", "3.0", "3.0"], "yes": ["True", "", "False", "True"], "number": ["0.5", "", "0.5", "1.0"],
        "kind": ["b", "", "a", "b"],
    }  # fmt: skip
    for column, texts in expected.items():
        groups = running.get(f"/v1/cells?source={sent.json['source']}&column={column}").json["groups"]
        assert groups["column"] == column
        assert [groups["names"][i] for i in groups["of"]] == texts
    running.call("DELETE", f"/v1/uploads/{sent.json['source']}")


def test_no_answer_names_a_file_of_the_server(running: Running, tmp_path: Path, cells: ad.AnnData) -> None:
    secret, few = folder_of(running).name, cells[:3].copy()
    few.write_h5ad(tmp_path / "good.h5ad")
    source = upload(running, tmp_path / "good.h5ad", "?name=a%0Ab.h5ad").json["source"]
    negative = few.copy()
    negative.X = -np.ones(few.shape, np.float32)
    negative.write_h5ad(tmp_path / "negative.h5ad")
    strangers = few.copy()
    strangers.var_names = [f"stranger-{i}" for i in range(few.n_vars)]
    strangers.write_h5ad(tmp_path / "strangers.h5ad")
    answers = [
        running.get(f"/v1/cells?source={source}&column=nothing"),
        running.post("/v1/describe", {"source": source, "cell_ids": ["nobody"]}),
        running.post("/v1/embed", {"source": source, "cell_ids": ["nobody"]}),
        upload(running, tmp_path / "negative.h5ad", "?name=mine.h5ad"),
        upload(running, tmp_path / "strangers.h5ad", "?name=mine.h5ad"),
        running.post("/v1/uploads?name=a%0Ab.h5ad", b"junk", headers=HDF5),
        running.post("/v1/describe", (tmp_path / "strangers.h5ad").read_bytes(), headers=HDF5),
        running.post("/v1/describe", (tmp_path / "negative.h5ad").read_bytes(), headers=HDF5),
    ]
    for found in answers:
        assert found.status in (404, 422), found.body
        assert_sentence(found.message)
        assert secret not in found.message
        assert not re.search(r"[0-9a-f]{16}\.h5ad", found.message), found.message
    assert "mine.h5ad" in answers[3].message
    assert "mine.h5ad" in answers[4].message
    running.call("DELETE", f"/v1/uploads/{source}")
    assert list(folder_of(running).iterdir()) == []


def test_damaged_files_are_refused_and_gone(running: Running, cells_path: Path) -> None:
    whole = cells_path.read_bytes()
    for raw in (b"", b"junk", whole[:1_000], whole[: len(whole) // 2], whole[:8] + b"\xff" * 5_000):
        found = running.post("/v1/uploads", raw, headers=HDF5)
        assert found.status == 422, found.body
        assert_sentence(found.message)
    assert list(folder_of(running).iterdir()) == []


def test_too_large_a_file_is_413(serving: Callable[..., Running], cells_path: Path) -> None:
    small = serving(upload_bytes=2_000)
    assert upload(small, cells_path).status == 413
    found = small.call("POST", "/v1/uploads", iter([b"\x89HDF\r\n\x1a\n" * 100] * 10), HDF5)
    assert found.status == 413
    assert list(folder_of(small).iterdir()) == []


def test_a_file_of_too_many_cells_for_one_request(serving: Callable[..., Running], cells_path: Path) -> None:
    few = serving(cells=10)
    found = few.post("/v1/describe", cells_path.read_bytes(), headers=HDF5)
    assert (found.status, "24 cells" in found.message) == (413, True)
    sent = upload(few, cells_path)
    assert (sent.status, len(sent.json["ids"])) == (201, 24)
    assert list(folder_of(few).iterdir()) != []


@pytest.mark.parametrize("name", ["zheng68k"])
def test_real_cells_are_listed_and_described(running: Running, shared: Path, name: str) -> None:
    path = shared / "data" / f"{name}.h5ad"
    if not path.is_file():
        pytest.skip(f"there is no {path.name}")
    sent = upload(running, path, f"?name={path.name}")
    if sent.status == 422:  # too few genes of the bundle are in it
        assert_sentence(sent.message)
        return
    told = sent.json
    assert sent.status == 201
    assert len(told["ids"]) == told["n_cells"]
    body = {"source": told["source"], "cell_ids": told["ids"][-2:], "max_new_tokens": 2}
    assert [x["status"] for x in running.post("/v1/describe", body).json["results"]] == ["ok", "ok"]
    assert running.call("DELETE", f"/v1/uploads/{told['source']}").status == 204
