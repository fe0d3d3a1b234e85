"""Answers that take a while: events as they come, and clients that leave before the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.visits import gone

T = TypeVar("T")


class EventStream(Response):
    """Server-sent events from an iterator; `on_leave` is called once nothing more is sent."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], on_leave: Callable[[], None]) -> None:
        self._events, self._on_leave = events, on_leave
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(None, headers=headers)
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or the client is gone."""
        sending = asyncio.create_task(self._send(send))
        watching = asyncio.create_task(gone(receive))
        try:
            await asyncio.wait((sending, watching), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, watching):
                task.cancel()
            self._on_leave()
            for task in (sending, watching):
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await task

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for event in self._events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def unless_gone(request: Request, answer: Coroutine[Any, Any, T], on_leave: Callable[[], None]) -> T:
    """Wait for an answer; once the client is gone give it up, which raises RequestError 499."""
    me, is_gone, is_over = asyncio.current_task(), False, False
    watching = asyncio.create_task(gone(request.receive))

    def give_up(_: asyncio.Task[None]) -> None:
        nonlocal is_gone
        if is_over:  # the answer came in the same moment
            return
        is_gone = True
        assert me is not None
        me.cancel()

    watching.add_done_callback(give_up)
    try:
        return await answer
    except asyncio.CancelledError:
        if not is_gone:
            raise
        assert me is not None
        me.uncancel()
        raise RequestError(499, "the client went away.") from None
    finally:
        is_over = True
        watching.remove_done_callback(give_up)
        watching.cancel()
        on_leave()
