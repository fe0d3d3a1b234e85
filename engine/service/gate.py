"""What every request passes: names that are ours, a key where one is asked for, and the count."""

from __future__ import annotations

import asyncio
import logging
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cellscribe.engine.service.json_text import Json
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.service import Service
from cellscribe.engine.service.visits import AGAIN_S, CUT_SHORT, VISIT, Visit

_LOG = logging.getLogger("cellscribe.service")
_OPEN = ("/health/", "/page/")


class Gate:
    """ASGI middleware.

    Parameters
    ----------
    hosts
        Names that clients may call this service by; None for any. A page of another site that made its name point here
        is kept out so.
    """

    def __init__(self, app: ASGIApp, service: Service, hosts: frozenset[str] | None) -> None:
        self._app, self._service, self._hosts = app, service, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # the server leaves the body out, by the scope that it made
            scope = {**scope, "method": "GET"}
        scope.setdefault("state", {})["client"] = client = self._client(scope)
        visit, status = Visit(client, receive, time.monotonic(), self._service.deadline(None)), 500
        token = VISIT.set(visit)

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                visit.is_begun = True
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                if scope["path"].startswith("/v1/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            problem = self._refusal(scope) or await self._passed(visit, scope, receive, counted)
            if problem is not None:
                self._service.metrics.failed(problem)
                answer = Json(problem.body(), problem.status, problem.headers())
                await answer(scope, receive, counted)
        finally:
            VISIT.reset(token)
            self._service.metrics.requests.labels(_route(scope), str(status)).inc()

    async def _passed(self, visit: Visit, scope: Scope, receive: Receive, send: Send) -> RequestError | None:
        """Let a request through; return what is said where the time to finish is over before it is answered."""
        with self._service.visits.one(visit):
            try:
                await self._app(scope, receive, send)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not visit.is_lost or visit.is_begun or task is None or task.uncancel():
                    raise
                return RequestError(503, CUT_SHORT, retry_after_s=AGAIN_S)
        return None

    def _refusal(self, scope: Scope) -> RequestError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if self._hosts is not None and name.lower() not in self._hosts:
            return RequestError(421, f"this service is not called {name!r}; use one of its own names, as localhost.")
        path, key = scope["path"], _key(headers)
        if path == "/" or path.startswith(_OPEN) or self._service.lets_in(key):
            return None
        what = "the key is not known" if key else "a key is needed"
        return RequestError(401, f"{what}; send it as the header Authorization: Bearer KEY.")

    def _client(self, scope: Scope) -> str:
        """Return who asks: one of several keys, or an address."""
        key = _key(Headers(scope=scope))
        if key and self._service.settings.keys:
            return f"key {key}"
        return str(scope["client"][0]) if scope.get("client") else "?"


def _key(headers: Headers) -> str | None:
    scheme = headers.get("authorization", "").encode("latin-1").decode(errors="replace")
    return scheme[7:].strip() if scheme[:7].lower() == "bearer " else None


def _route(scope: Scope) -> str:
    """Return the route of a request, of which there are few."""
    route = scope.get("route")
    return str(getattr(route, "path", "other"))
