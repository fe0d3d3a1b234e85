"""The service as an ASGI application."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

import cellscribe
from cellscribe.engine.errors import CellscribeError
from cellscribe.engine.service.calling import CallService
from cellscribe.engine.service.documents.openapi import completed
from cellscribe.engine.service.gate import Gate
from cellscribe.engine.service.json_text import Json
from cellscribe.engine.service.problems import RequestError, problem_of
from cellscribe.engine.service.routes import absent, ask, chat, describe, family, meta, page
from cellscribe.engine.service.service import Service

_LOG = logging.getLogger("cellscribe.service")
_SAID = (
    "Cells as gene counts in; texts, labels, vectors and cells out. An error is a sentence that says how to mend it."
)


def create_app(service: Service, hosts: frozenset[str] | None = None) -> FastAPI:
    """Return the application.

    Parameters
    ----------
    service
        What answers; it is started and closed by whoever made it.
    hosts
        Names that clients may call it by; None for any.
    """
    app = FastAPI(title="Cellscribe", description=_SAID, version=cellscribe.__version__, docs_url=None, redoc_url=None)
    app.state.service = service
    own = (family, ask) if isinstance(service, CallService) else (describe, chat)
    for routes in (meta, *own, page, absent):
        app.include_router(routes.router)
    app.router.routes[:0] = [
        _Direct(one.path, one.endpoint, methods=["POST"])
        for routes in own
        for one in routes.router.routes
        if isinstance(one, APIRoute) and one.methods == {"POST"}
    ]
    for kind in (RequestError, CellscribeError, Exception):
        app.add_exception_handler(kind, _answer)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_middleware(Gate, service=service, hosts=hosts)
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = completed(plain(), service)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app


class _Direct(Route):
    """A route without FastAPI's dependencies, of which ours have none: a sixth of what a request costs goes there."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Say which route it is, too, as FastAPI's do."""
        match, found = super().matches(scope)
        return match, {**found, "route": self}


async def _answer(request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    if problem.status >= 500 and not isinstance(error, RequestError):
        _LOG.error("a request failed", exc_info=error)
    request.app.state.service.metrics.failed(problem)
    return Json(problem.body(), problem.status, problem.headers())


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "there is nothing at this address; see /openapi.json.", 405: "this address takes other methods."}
    problem = RequestError(error.status_code, words.get(error.status_code, str(error.detail)))
    request.app.state.service.metrics.failed(problem)
    return Json(problem.body(), problem.status, {**problem.headers(), **(error.headers or {})})


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    problem = RequestError(422, f"{where} is not as it should be: {first['msg'].lower()}.", where)
    request.app.state.service.metrics.failed(problem)
    return Json(problem.body(), problem.status)
