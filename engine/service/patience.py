"""Connections whose clients do not read what they asked for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from uvicorn.protocols.http.auto import AutoHTTPProtocol

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as _Protocol
else:
    _Protocol = AutoHTTPProtocol


def patient(seconds: float) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol, which ends a connection whose client has read nothing of what waits for so long.

    uvicorn itself waits until there is room again: a client that never reads would keep its connection, its request and
    what is written for it for ever. One that is ended counts as one that has left.
    """

    class Patient(_Protocol):
        """A connection; while too much waits to be sent its end is set."""

        _end: asyncio.TimerHandle | None = None
        _unread = 0

        def pause_writing(self) -> None:
            """Too much waits: look whether it is read."""
            super().pause_writing()
            self._watch()

        def resume_writing(self) -> None:
            """The client has read: take the end back."""
            super().resume_writing()
            self._stay()

        def connection_lost(self, exc: Exception | None) -> None:
            """It is over."""
            self._stay()
            super().connection_lost(exc)

        def timeout_keep_alive_handler(self) -> None:
            """Close an idle connection, and end it where the rest of an answer is not read either."""
            if not self.transport.is_closing():
                super().timeout_keep_alive_handler()
                self._watch()

        def _watch(self) -> None:
            self._stay()
            self._unread = self.transport.get_write_buffer_size()
            self._end = self.loop.call_later(seconds, self._look)

        def _look(self) -> None:
            """End the connection, unless some of what waited has been read."""
            if self.transport.get_write_buffer_size() < self._unread:
                self._watch()
            else:
                self.transport.abort()

        def _stay(self) -> None:
            if self._end is not None:
                self._end.cancel()
                self._end = None

    return Patient
