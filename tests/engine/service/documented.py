"""Checks of a service's OpenAPI document, and of answers against it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jsonschema

METHODS = ("get", "post", "put", "patch", "delete")


def operations(told: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield every address, method and operation."""
    for path, item in told["paths"].items():
        for method, one in item.items():
            assert method in METHODS, (path, method)
            yield path, method, one


def followed(told: dict[str, Any], inside: dict[str, Any]) -> Any:
    """Return what a reference leads to."""
    while "$ref" in inside:
        place: Any = told
        for part in inside["$ref"].removeprefix("#/").split("/"):
            place = place[part]
        inside = place
    return inside


def check(told: dict[str, Any]) -> None:
    """Check what the OpenAPI specification 3.1 asks for."""
    assert told["openapi"].startswith("3.1.")
    assert told["info"].keys() >= {"title", "version"}
    assert told.keys() <= {"openapi", "info", "servers", "paths", "components", "security", "tags"}
    names = [one["operationId"] for _, _, one in operations(told)]
    assert len(set(names)) == len(names)
    for path, _, one in operations(told):
        assert path.startswith("/")
        _check_parameters(told, path, one)
        assert one["responses"]
        if "requestBody" in one:
            _check_content(told, one["requestBody"]["content"])
        for status, answer in one["responses"].items():
            assert re.fullmatch(r"[1-5]\d\d", status)
            whole = followed(told, answer)
            assert whole["description"]
            _check_content(told, whole.get("content", {}))
        for scheme in (name for need in one.get("security", ()) for name in need):
            assert scheme in told["components"]["securitySchemes"]
    for schema in told["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def misfits(told: dict[str, Any], schema: dict[str, Any], answer: Any, *, is_closed: bool = True) -> list[str]:
    """Return what of an answer its schema does not say; with `is_closed` fields that it does not name, too."""
    whole = {"components": _closed(told["components"]) if is_closed else told["components"], **schema}
    validator = jsonschema.Draft202012Validator(whole)
    return [f"{one.json_path}: {one.message[:200]}" for one in validator.iter_errors(answer)]


def schema_of(told: dict[str, Any], path: str, method: str = "post", status: int = 200) -> dict[str, Any]:
    """Return the schema of a JSON answer."""
    answer = followed(told, told["paths"][path][method]["responses"][str(status)])
    found: dict[str, Any] = answer["content"]["application/json"]["schema"]
    return found


def _check_parameters(told: dict[str, Any], path: str, one: dict[str, Any]) -> None:
    parameters = one.get("parameters", [])
    places = [(each["in"], each["name"]) for each in parameters]
    assert len(set(places)) == len(places)
    assert {name for where, name in places if where == "path"} == set(re.findall(r"{(\w+)}", path))
    for each in parameters:
        assert each["in"] in ("path", "query", "header")
        assert each["in"] != "path" or each["required"]
        jsonschema.Draft202012Validator.check_schema(each["schema"])


def _check_content(told: dict[str, Any], content: dict[str, Any]) -> None:
    for kind, media in content.items():
        assert re.fullmatch(r"\w+/[\w.+-]+", kind)
        jsonschema.Draft202012Validator.check_schema(media["schema"])
        if "example" in media and kind == "application/json":
            assert misfits(told, media["schema"], media["example"], is_closed=False) == []


def _closed(inside: Any) -> Any:
    """Return schemas that name all fields of an object as ones that allow no others."""
    if isinstance(inside, list):
        return [_closed(one) for one in inside]
    if not isinstance(inside, dict):
        return inside
    found = {key: _closed(value) for key, value in inside.items()}
    if isinstance(found.get("properties"), dict) and found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found
