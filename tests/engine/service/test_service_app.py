from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from running_service import Running, assert_sentence

ROUTES = {
    "/v1/models": "get", "/v1/cells": "get", "/v1/uploads": "post", "/v1/uploads/{upload_id}": "delete",
    "/v1/describe": "post", "/v1/embed": "post", "/v1/chat/completions": "post", "/health/live": "get",
    "/health/ready": "get", "/metrics": "get",
}  # fmt: skip
BODIES = {"/v1/describe": "DescribeBody", "/v1/embed": "EmbedBody", "/v1/chat/completions": "ChatBody"}
ANYWHERE = ("/", "/page/nothing.js", "/health/live", "/health/ready")
LOCKED = ("/v1/models", "/v1/cells", "/metrics", "/v1/nothing")


def test_the_model_says_what_it_can_do_and_within_which_bounds(running: Running) -> None:
    told = running.get("/v1/models").json
    assert told["object"] == "list"
    (one,) = told["data"]
    assert (one["id"], one["object"], one["owned_by"], one["family"]) == ("demo", "model", "cellscribe", "lingocell")
    assert {"describe", "embed"} <= set(one["tasks"])
    assert one["device"].startswith("CPU")
    assert one["precision"]
    assert one["limits"]["cells"] == 256
    assert one["limits"]["body_bytes"] == 33_554_432
    assert (one["limits"]["min_new_tokens"], one["limits"]["max_new_tokens"]) == (1, 256)
    assert one["needs_key"] is False
    assert running.get("/v1/models/demo").json["id"] == "demo"


def test_a_model_that_is_not_there(running: Running) -> None:
    found = running.get("/v1/models/gpt-4")
    assert found.status == 404
    assert found.json == {
        "error": {
            "message": "the model 'gpt-4' is not here; 'demo' is.", "type": "not_found_error", "param": "model",
            "code": 404,
        }
    }  # fmt: skip


def test_the_documentation_has_every_route_and_every_body_with_an_example(running: Running) -> None:
    told = running.get("/openapi.json").json
    for path, method in ROUTES.items():
        assert method in told["paths"][path], path
    for path, name in BODIES.items():
        content = told["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert content["schema"] == {"$ref": f"#/components/schemas/{name}"}
        assert name in told["components"]["schemas"]
        found = running.post(path, content["example"] | {"max_tokens" if "chat" in path else "deadline_s": 30})
        assert found.status == 200, found.body  # the example works
    for path in ("/v1/describe", "/v1/uploads"):
        assert "application/x-hdf5" in told["paths"][path]["post"]["requestBody"]["content"]
    assert "/docs" not in told["paths"]
    assert running.get("/docs").status == 404


def test_every_reference_of_the_documentation_leads_somewhere(running: Running) -> None:
    told = running.get("/openapi.json").json

    def references(inside: Any) -> list[str]:
        if isinstance(inside, dict):
            own = [inside["$ref"]] if isinstance(inside.get("$ref"), str) else []
            return own + [one for value in inside.values() for one in references(value)]
        return [one for value in inside for one in references(value)] if isinstance(inside, list) else []

    for reference in references(told):
        place = told
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nothing", 404, "not_found_error"),
        ("GET", "/v1/nothing", 404, "not_found_error"),
        ("GET", "/page/nothing.js", 404, "not_found_error"),
        ("GET", "/page/..%2fapp.py", 404, "not_found_error"),
        ("GET", "/page/..", 404, "not_found_error"),
        ("GET", "/page/%00", 404, "not_found_error"),
        ("GET", "/page/" + "a" * 300, 404, "not_found_error"),
        ("GET", "/v1/cells?source=up-nothing", 404, "not_found_error"),
        ("GET", "/v1/cells?source=%0Aa", 404, "not_found_error"),
        ("GET", "/v1/cells?column=nothing", 422, "invalid_request_error"),
        ("GET", "/v1/cells?column=" + "a" * 501, 422, "invalid_request_error"),
        ("POST", "/v1/uploads?values=fractions", 422, "invalid_request_error"),
        ("DELETE", "/v1/uploads/up-nothing", 404, "not_found_error"),
        ("DELETE", "/v1/uploads/demo", 404, "not_found_error"),
        ("PUT", "/v1/describe", 405, "invalid_request_error"),
        ("GET", "/v1/describe", 405, "invalid_request_error"),
        ("OPTIONS", "/v1/describe", 405, "invalid_request_error"),
        ("PATCH", "/v1/describe", 405, "invalid_request_error"),
    ],
)
def test_errors_have_one_shape(running: Running, method: str, path: str, status: int, kind: str) -> None:
    found = running.call(method, path)
    assert found.status == status, found.body
    told = found.json["error"]
    assert set(told) == {"message", "type", "param", "code"}
    assert (told["type"], told["code"]) == (kind, status)
    assert_sentence(told["message"])
    assert ("allow" in found.headers) == (status == 405)


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/v1/models", "/metrics"])
def test_head_is_a_get_without_its_body(running: Running, path: str) -> None:
    found = running.call("HEAD", path)
    assert (found.status, found.body) == (200, b"")
    assert found.headers["content-type"] == running.get(path).headers["content-type"]


def test_no_page_of_another_site_may_read(running: Running) -> None:
    for method, path in (("GET", "/v1/models"), ("OPTIONS", "/v1/describe"), ("GET", "/")):
        found = running.call(
            method, path, headers={"Origin": "https://other.example", "Access-Control-Request-Method": "POST"}
        )
        assert not [name for name in found.headers if name.startswith("access-control")]


def test_headers_that_keep_browsers_careful(running: Running) -> None:
    for path in ("/v1/models", "/nothing", "/health/live"):
        found = running.get(path)
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["referrer-policy"] == "no-referrer"
        assert "server" not in found.headers
        assert (found.headers.get("cache-control") == "no-store") == path.startswith("/v1/")


def test_the_page_may_load_nothing_from_elsewhere(running: Running) -> None:
    found = running.get("/")
    if found.status == 404:
        pytest.skip("there is no page")
    policy = found.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert found.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("name", ["evil.example", "evil.example:8000", "", "127.0.0.1.evil.example", "localhost."])
def test_on_the_loopback_other_names_are_turned_away(running: Running, name: str) -> None:
    found = running.get("/v1/models", Host=name)
    assert found.status == 421
    assert found.json["error"]["type"] == "invalid_request_error"
    assert_sentence(found.message)


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:8000", "[::1]"])
def test_on_the_loopback_its_own_names_are_heard(running: Running, name: str) -> None:
    assert running.get("/health/live", Host=name).status == 200


def test_keys_let_in_and_nothing_else_does(serving: Callable[..., Running]) -> None:
    locked = serving(keys=("first-key", "zweiter Schlüssel"))
    for path in ANYWHERE:
        assert locked.get(path).status in (200, 404)
    for path in LOCKED:
        found = locked.get(path)
        assert found.status == 401
        assert found.json["error"]["type"] == "authentication_error"
        assert found.headers["www-authenticate"] == "Bearer"
        assert "a key is needed" in found.message
        assert_sentence(found.message)
    for wrong in ("Bearer other", "Bearer first-ke", "Bearer first-key2", "Basic first-key", "first-key", "Bearer "):
        found = locked.get("/v1/models", Authorization=wrong)
        assert found.status == 401, wrong
        assert "other" not in found.message
    for right in ("Bearer first-key", "bearer first-key", "Bearer  first-key "):
        assert locked.get("/v1/models", Authorization=right).json["data"][0]["needs_key"] is True
    assert locked.post("/v1/embed", {"cells": [{"genes": {"LTB": 1}}]}).status == 401
    told = locked.get("/metrics", Authorization="Bearer first-key").body.decode()
    assert 'cellscribe_errors_total{kind="authentication_error"}' in told
    assert "first-key" not in told


def test_a_key_that_is_not_ascii_works(serving: Callable[..., Running]) -> None:
    locked = serving(keys=("Schlüssel",))
    raw: Any = "Bearer Schlüssel".encode()
    assert locked.get("/v1/models", Authorization=raw).status == 200
    assert locked.get("/v1/models", Authorization="Bearer \xff").status == 401


def test_readiness_ends_with_the_shutdown(serving: Callable[..., Running]) -> None:
    own = serving()
    assert own.get("/health/ready").json == {"status": "ready"}
    own.service.shut()
    found = own.get("/health/ready")
    assert (found.status, found.json) == (503, {"status": "shutting down"})
    assert own.get("/health/live").status == 200
    for path, body in (
        ("/v1/describe", {"source": "demo", "cell_ids": [own.get("/v1/cells").json["ids"][0]]}),
        ("/v1/embed", {"cells": [{"genes": {"LTB": 1}}]}),
    ):
        found = own.post(path, body)
        assert (found.status, found.json["error"]["type"]) == (503, "unavailable_error"), found.body
        assert "shutting down" in found.message
        assert_sentence(found.message)


def test_before_the_model_is_there_it_is_loading(serving: Callable[..., Running]) -> None:
    own = serving()
    own.service.desk.is_ready = False
    found = own.get("/health/ready")
    assert (found.status, found.json) == (503, {"status": "loading"})
