"""What /openapi.json says of answers is what is answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import pytest
from called import called
from running_service import Running
from starlette.testclient import TestClient

from cellscribe.engine.service.app import create_app
from cellscribe.engine.service.documents.answers import Record

jsonschema = pytest.importorskip("jsonschema")

from documented import check, followed, misfits, operations, schema_of  # noqa: E402

HDF5 = {"Content-Type": "application/x-hdf5"}
ASKED = ("/v1/describe", "/v1/embed", "/v1/annotate", "/v1/generate", "/v1/chat/completions")
VOLATILE = ("id", "created", "latency_ms", "queue_ms", "time_to_first_token_ms")


@pytest.fixture(scope="module")
def told(running: Running) -> dict[str, Any]:
    found: dict[str, Any] = running.get("/openapi.json").json
    return found


@pytest.fixture(scope="module")
def sentences() -> Iterator[TestClient]:
    with called("demo-c2s") as (_, client):
        yield client


def settled(answer: Any) -> Any:
    """Return an answer without what is another each time."""
    if isinstance(answer, list):
        return [settled(one) for one in answer]
    if isinstance(answer, dict):
        return {key: settled(value) for key, value in answer.items() if key not in VOLATILE}
    return answer


def near(answer: Any) -> Any:
    """Return an answer whose numbers are about right."""
    if isinstance(answer, list):
        return [near(one) for one in answer]
    if isinstance(answer, dict):
        return {key: near(value) for key, value in answer.items()}
    return pytest.approx(answer, rel=1e-2, abs=1e-3) if isinstance(answer, float) else answer


def test_the_documents_are_openapi(told: dict[str, Any], sentences: TestClient) -> None:
    check(told)
    check(sentences.get("/openapi.json").json())


def test_whole_answers_are_as_they_are_said_to_be(running: Running, told: dict[str, Any], cells: ad.AnnData) -> None:
    picked = {"source": "demo", "cell_ids": cells.obs_names[:2].tolist()}
    part = {"type": "cell", "cell": {"genes": {"LTB": 4, "nothing": 1}}}
    for path, body in (
        ("/v1/describe", picked | {"max_new_tokens": 4}),
        ("/v1/describe", {"cells": [{"genes": {}}, {"genes": {"LTB": 4, "nothing": 1}}], "temperature": 1}),
        ("/v1/embed", picked),
        ("/v1/embed", {"cells": [{"genes": {}}, {"genes": {"LTB": 4}}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [part]}]}),
    ):
        found = running.post(path, body)
        assert found.status == 200
        assert misfits(told, schema_of(told, path), found.json) == []
    for path, template in (
        ("/v1/models", "/v1/models"), ("/v1/models/demo", "/v1/models/{name}"), ("/v1/cells", "/v1/cells"),
        ("/health/live", "/health/live"), ("/health/ready", "/health/ready"),
    ):  # fmt: skip
        assert misfits(told, schema_of(told, template, "get"), running.get(path).json) == []


def test_an_upload_is_as_it_is_said_to_be(running: Running, told: dict[str, Any], cells_path: Path) -> None:
    sent = running.post("/v1/uploads?name=a.h5ad", cells_path.read_bytes(), headers=HDF5)
    assert misfits(told, schema_of(told, "/v1/uploads", status=201), sent.json) == []
    gone = running.call("DELETE", f"/v1/uploads/{sent.json['source']}")
    assert (gone.status, gone.body) == (204, b"")
    assert "content" not in told["paths"]["/v1/uploads/{upload_id}"]["delete"]["responses"]["204"]


def test_answers_of_other_families_are_as_they_are_said_to_be(sentences: TestClient, cells: ad.AnnData) -> None:
    told = sentences.get("/openapi.json").json()
    picked = {"source": "demo", "cell_ids": cells.obs_names[:1].tolist()}
    none = {"cells": [{"genes": {"CD3D": 0}}, {"genes": {"CD3D": 2}}]}
    talk = {"messages": [{"role": "user", "content": "Which cell type?"}], "cell": {"genes": {"CD3D": 2}}}
    for path, body in (
        ("/v1/annotate", picked | {"labels": {"B cell": "CL:0000236", "T cell": None}, "scores": True}),
        ("/v1/annotate", none | {"max_new_tokens": 4}),
        ("/v1/embed", none),
        ("/v1/generate", {"cell_type": "B cell", "max_new_tokens": 20}),
        ("/v1/chat/completions", talk | {"max_tokens": 4}),
    ):
        found = sentences.post(path, json=body)
        assert found.status_code == 200, found.text
        assert misfits(told, schema_of(told, path), found.json()) == []


def test_events_are_as_they_are_said_to_be(running: Running, told: dict[str, Any]) -> None:
    body = {"cells": [{"genes": {"LTB": 3}}, {"genes": {}}], "stream": True, "max_new_tokens": 3}
    media = told["paths"]["/v1/describe"]["post"]["responses"]["200"]["content"]["text/event-stream"]
    seen = set()
    for more in ({"grid": True}, {}):
        for name, event in running.events("/v1/describe", body | more):
            assert f"`{name}`" in media["schema"]["description"]
            assert misfits(told, media["x-events"][name], event) == [], name
            seen.add(name)
    assert seen | {"error"} == media["x-events"].keys()


def test_chunks_are_as_they_are_said_to_be(running: Running, told: dict[str, Any]) -> None:
    media = told["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"]["text/event-stream"]
    body = {"messages": [{"role": "user"}], "cell": {"genes": {"LTB": 3}}, "max_tokens": 3, "stream": True}
    events = running.events("/v1/chat/completions", body | {"stream_options": {"include_usage": True}})
    chunks = [event for _, event in events if event != "[DONE]"]
    assert len(chunks) > 3
    for one in chunks:
        assert misfits(told, media["x-events"]["chunk"], one) == []


def test_errors_are_as_they_are_said_to_be(serving: Callable[..., Running], told: dict[str, Any]) -> None:
    small = serving(body_bytes=400, keys=("k",))
    key = {"Authorization": "Bearer k"}
    locked = small.get("/openapi.json", **key).json
    cell = {"cells": [{"genes": {"LTB": 3}}]}
    for body, headers, status in (
        (b"{", key, 400), (cell, {}, 401), (cell | {"model": "x"}, key, 404), (b" " * 401, key, 413),
        (b"{}", key | {"Content-Type": "text/plain"}, 415), ({}, key, 422),
    ):  # fmt: skip
        found = small.post("/v1/describe", body, headers=headers)
        assert found.status == status
        assert misfits(locked, schema_of(locked, "/v1/describe", status=status), found.json) == []
    small.service.shut()
    found = small.post("/v1/describe", cell, headers=key)
    answer = followed(told, told["paths"]["/v1/describe"]["post"]["responses"]["503"])
    assert (found.status, int(found.headers["retry-after"]) > 0, "Retry-After" in answer["headers"]) == (
        503,
        True,
        True,
    )
    answer = followed(told, told["paths"]["/v1/describe"]["post"]["responses"]["429"])
    assert followed(told, answer["headers"]["Retry-After"])["schema"]["type"] == "integer"
    found = small.post("/v1/embed", cell, headers=key)
    assert (found.status, int(found.headers["retry-after"]) > 0) == (503, True)


def test_all_that_is_asked_can_fail_in_every_way(told: dict[str, Any], sentences: TestClient) -> None:
    for document in (told, sentences.get("/openapi.json").json()):
        for path, method, one in operations(document):
            if path in ASKED:
                assert one["responses"].keys() >= {"400", "404", "413", "422", "429", "503", "504"}, path
            assert "200" in one["responses"] or method in ("post", "delete")


def test_keys_are_told_of_where_there_are_any(serving: Callable[..., Running], told: dict[str, Any]) -> None:
    locked = serving(keys=("k",)).get("/openapi.json", Authorization="Bearer k").json
    check(locked)
    assert locked["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}
    for path, _, one in operations(locked):
        is_locked = path.startswith(("/v1/", "/metrics"))
        assert one.get("security") == ([{"bearer": []}] if is_locked else None)
        assert ("401" in one["responses"]) == is_locked
    assert "securitySchemes" not in told["components"]
    assert not any("security" in one or "401" in one["responses"] for _, _, one in operations(told))


def test_files_as_bodies_have_their_options_in_the_query(told: dict[str, Any], sentences: TestClient) -> None:
    for document, path, names in (
        (told, "/v1/describe", {"stream", "max_new_tokens", "temperature", "top_p", "seed", "top_genes", "grid"}),
        (told, "/v1/embed", set()),
        (sentences.get("/openapi.json").json(), "/v1/annotate", {"labels", "scores", "max_new_tokens"}),
    ):
        one = document["paths"][path]["post"]
        assert one["requestBody"]["content"].keys() == {
            "application/json", "application/x-hdf5", "application/octet-stream",
        }  # fmt: skip
        assert {each["name"] for each in one["parameters"]} == names | {"values", "deadline_s", "model"}
        schemas = {each["name"]: each["schema"] for each in one["parameters"]}
        assert schemas["deadline_s"]["exclusiveMinimum"] == 0
        assert schemas.get("labels", {"type": "array"})["type"] == "array"
    assert told["paths"]["/v1/uploads"]["post"]["requestBody"]["content"].keys() == {
        *HDF5.values(),
        "application/octet-stream",
    }
    listing = {each["name"] for each in told["paths"]["/v1/cells"]["get"]["parameters"]}
    assert listing == {"source", "column"}


def example(document: dict[str, Any], path: str) -> tuple[Any, Any]:
    """Return the examples of a body and of its answer."""
    one = document["paths"][path]["post"]
    asked = one["requestBody"]["content"]["application/json"]["example"]
    return asked, one["responses"]["200"]["content"]["application/json"]["example"]


@pytest.mark.parametrize("path", ["/v1/describe", "/v1/embed", "/v1/chat/completions"])
def test_examples_are_what_is_answered(running: Running, told: dict[str, Any], path: str) -> None:
    asked, answered = example(told, path)
    found = running.post(path, asked).json
    assert found.keys() == answered.keys()
    assert settled(found) == near(settled(answered))


@pytest.mark.parametrize("path", ["/v1/annotate", "/v1/generate"])
def test_examples_of_other_families_are_what_is_answered(sentences: TestClient, path: str) -> None:
    asked, answered = example(sentences.get("/openapi.json").json(), path)
    assert settled(sentences.post(path, json=asked).json()) == near(settled(answered))


def test_no_answer_is_checked_against_its_schema(running: Running) -> None:
    """Checking would cost as much as making it."""
    assert all(getattr(one, "response_model", None) is None for one in create_app(running.service).routes)


def test_times_say_what_they_count_from() -> None:
    told = {name: one.description or "" for name, one in Record.model_fields.items()}
    assert told["latency_ms"].startswith("From its slot")
    assert told["queue_ms"].startswith("From its arrival")
    assert told["time_to_first_token_ms"].startswith("From its arrival")
