"""The process: a socket, the application, and an orderly end."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from cellscribe.engine.errors import UsageError
from cellscribe.engine.service.addresses import is_loopback, local_names
from cellscribe.engine.service.app import create_app
from cellscribe.engine.service.patience import patient
from cellscribe.engine.service.service import Service

_LOG = logging.getLogger("cellscribe.service")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LAST_S = 1.0  # of the time to finish, for the answers that say that it is over
_SWITCH_SECONDS = 2e-4  # how long another thread may keep the interpreter from the one that feeds the device


class Server(uvicorn.Server):
    """uvicorn, which on the first signal takes nothing new and finishes what runs, and on the second stops at once.

    Parameters
    ----------
    grace_s
        How long what runs may take to finish; shortly before its end what is left is refused.
    """

    def __init__(self, config: uvicorn.Config, service: Service, grace_s: float) -> None:
        super().__init__(config)
        self._service, self._grace_s, self._asked = service, grace_s, float("nan")

    @property
    def left_s(self) -> float:
        """What is left of the time to finish."""
        return self._grace_s if math.isnan(self._asked) else max(0.0, self._asked + self._grace_s - time.monotonic())

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take signals for what they ask for; uvicorn raises them once more at the end, and this end is no failure."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, self.handle_exit) for one in _SIGNALS}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the shutdown, or cut it short."""
        self._begin_to_end()
        self.should_exit, self.force_exit = True, self.should_exit

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what runs, and refuse in good time what takes too long."""
        self._begin_to_end()
        wait_s = max(0.0, self.left_s - min(_LAST_S, self._grace_s / 4))
        losing = asyncio.get_running_loop().call_later(wait_s, self._service.visits.lose)
        try:
            await super().shutdown(sockets)
        finally:
            losing.cancel()

    def _begin_to_end(self) -> None:
        self._service.shut()
        if math.isnan(self._asked):
            self._asked = time.monotonic()


def serve(
    service: Service, host: str, port: int, *, grace_s: float, on_listening: Callable[[str], None] = lambda _: None
) -> None:
    """Answer until a signal comes, and then finish what runs, for at most `grace_s` seconds.

    Raises
    ------
    UsageError
        Where the address or the port cannot be listened on.
    """
    sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_SECONDS))
    sock = _bound(host, port)
    address, real_port = sock.getsockname()[:2]
    app = create_app(service, local_names(host) if is_loopback(host) else None)
    config = configured(app, service.limits.idle_s, grace_s=grace_s)
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    service.start()
    server = Server(config, service, grace_s)
    on_listening(f"http://{'[' + address + ']' if ':' in address else address}:{real_port}")
    try:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(server.serve(sockets=[sock]))
    finally:
        if not service.drain(server.left_s):
            _LOG.warning("texts were still being written when the time to finish them was over")
        service.close()
        sock.close()


def configured(app: ASGIApp, idle_s: float, *, grace_s: float) -> uvicorn.Config:
    """Return how uvicorn serves the application.

    Parameters
    ----------
    idle_s
        How long a client may leave its answer unread.
    grace_s
        How long connections may stay open at the end.
    """
    return uvicorn.Config(
        app,
        http=patient(idle_s),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(grace_s + 0.999),
        limit_concurrency=None,
        lifespan="off",
        h11_max_incomplete_event_size=64 * 1024,
    )


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of uvicorn's log tells anything: requests that the end of all cuts short are no failures."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host.strip("[]"), port))
        sock.listen(2048)
    except (OSError, TypeError) as error:
        sock.close()
        why = (isinstance(error, OSError) and error.strerror) or error
        raise UsageError(
            f"{host} port {port} cannot be listened on ({why}); choose another --host or --port."
        ) from error
    return sock
