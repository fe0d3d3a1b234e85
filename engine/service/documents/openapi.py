"""The OpenAPI document of a service: FastAPI's, with the bodies and answers that are read and made by ourselves."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from cellscribe.engine.service.bodies import HDF5, JSON
from cellscribe.engine.service.documents.meta import ErrorAnswer, Health
from cellscribe.engine.service.documents.operations import OPERATIONS, Operation
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.schemas import FileOptions
from cellscribe.engine.service.service import Service

_SENTENCES = {
    400: "the body is no JSON, says something twice, or asks for what is not supported; mend it and send it again.",
    401: "a key is needed; send it as the header Authorization: Bearer KEY.",
    404: "there is no such cell, file or model, or the bundle does not do this.",
    408: "the body came too slowly; send it faster.",
    413: "the body has too many bytes, cells, genes or labels; send less at a time.",
    415: "the body is of another type than those that are read; say what it is in Content-Type.",
    422: "something in the body is not as it should be; the field param says where.",
    429: "there is no room among the cells that may wait, or for more files; come again after Retry-After.",
    500: "the model failed, or the service; try again.",
    503: "the service is shutting down; try again later.",
    504: "the deadline passed before all was answered; allow more time.",
    507: "the disk of the service has no room for the file; send a smaller one.",
}
_COMES_AGAIN = (429, 503, 507)
_SECONDS = {"type": "integer", "minimum": 1}
_AT_TIMES = {"schema": {"type": "string", "format": "binary"}}


def completed(told: dict[str, Any], service: Service) -> dict[str, Any]:
    """Return FastAPI's document of a service with bodies, answers, errors and keys."""
    mine = [one for one in OPERATIONS if one.path in told["paths"]]
    keys = bool(service.settings.keys)
    for one in mine:
        _complete(told["paths"][one.path][one.method], one, service.bundle.manifest.family, keys)
    told["components"] = {
        "schemas": _schemas(mine),
        "responses": {_name(status): _error(status) for status in _SENTENCES},
        "headers": {"RetryAfter": {"description": "Seconds until it is worth trying again.", "schema": _SECONDS}},
    }
    if keys:
        told["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    return told


def _complete(said: dict[str, Any], one: Operation, family: str, has_keys: bool) -> None:
    content = {} if one.body is None else {JSON: _json_body(one.body)}
    if one.takes_file:
        content |= dict.fromkeys(HDF5, _AT_TIMES)
    if content:
        said["requestBody"] = {"required": True, "content": content}
    if one.file is not None:
        said["parameters"] = [*said.get("parameters", ()), *_parameters(one.file)]
    said["responses"] = {str(one.status): _answer(one, family)} | {
        str(status): {"$ref": f"#/components/responses/{_name(status)}"} for status in one.errors
    }
    if one.answer is Health:
        said["responses"]["503"] = _answer(one, family) | {"description": "It is not."}
    if has_keys and one.needs_key:
        said["security"] = [{"bearer": []}]
        said["responses"]["401"] = {"$ref": f"#/components/responses/{_name(401)}"}


def _answer(one: Operation, family: str) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if one.answer is not None:
        content[JSON] = {"schema": _reference(one.answer)} | _example(one.path, family)
    if one.events:
        events = {kind: _reference(model) for kind, model in one.events.items()}
        streamed = {"schema": {"type": "string", "description": one.told}, "x-events": events}
        content["text/event-stream"] = streamed | _example(f"{one.path} as a stream", family)
    for kind in one.other:
        content[kind] = _AT_TIMES if kind in HDF5 else {"schema": {"type": "string"}}
    description = (one.answer.__doc__ or "") if one.answer else "Done." if one.status == 204 else "All figures."
    return {"description": description.split("\n")[0], **({"content": content} if content else {})}


def _json_body(model: type[BaseModel]) -> dict[str, Any]:
    examples = model.model_json_schema()["examples"]
    return {"schema": _reference(model), "example": examples[0]}


def _parameters(options: type[FileOptions]) -> list[dict[str, Any]]:
    """Return options as a query has them: each text, or several of them, and none is null."""
    found = []
    for name, schema in options.model_json_schema()["properties"].items():
        kinds = [one for one in schema.pop("anyOf", ()) if one.get("type") not in ("null", "object")]
        said = f"Only beside a file as the body. {schema.pop('description', '')}".strip()
        plain = {key: value for key, value in schema.items() if (key, value) != ("default", None)}
        shape = plain | (kinds[0] if kinds else {})
        found.append({"name": name, "in": "query", "required": False, "description": said, "schema": shape})
    return found


def _error(status: int) -> dict[str, Any]:
    content = {"schema": _reference(ErrorAnswer), "example": RequestError(status, _SENTENCES[status]).body()}
    sentence = _SENTENCES[status]
    told: dict[str, Any] = {"description": sentence[:1].upper() + sentence[1:], "content": {JSON: content}}
    if status in _COMES_AGAIN:
        told["headers"] = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}
    return told


def _schemas(mine: Iterable[Operation]) -> dict[str, Any]:
    takes: set[type[BaseModel]] = {one.body for one in mine if one.body is not None}
    gives: set[type[BaseModel]] = {ErrorAnswer} | {one.answer for one in mine if one.answer is not None}
    gives |= {model for one in mine for model in one.events.values()}
    pairs = [(one, "validation") for one in (*takes, *gives)]
    _, told = models_json_schema(pairs, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    found: dict[str, Any] = told["$defs"]
    return dict(sorted(found.items()))


def _example(what: str, family: str) -> dict[str, Any]:
    """Return what a packaged bundle of the family answered to the example of the body, where there is one."""
    found = _examples().get(what, {})
    return {"example": found[family]} if family in found else {}


@cache
def _examples() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((files(__package__) / "examples.json").read_text(encoding="utf-8"))
    return found


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _name(status: int) -> str:
    return f"Error{status}"
