"""A service in a thread of the test, and a client that speaks HTTP to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import uvicorn

from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.service.addresses import local_names
from cellscribe.engine.service.app import create_app
from cellscribe.engine.service.describing import DescribeService
from cellscribe.engine.service.limits import ServiceLimits
from cellscribe.engine.service.patience import patient
from cellscribe.engine.service.server import Server, configured
from cellscribe.engine.service.service import ServiceSettings

Event = tuple[str, Any]


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return str(self.json["error"]["message"])


class Running:
    """A started service behind uvicorn, on a free port of the loopback."""

    def __init__(self, service: DescribeService, *, has_hosts: bool = True, grace_s: float | None = None) -> None:
        self.service = service
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.socket.getsockname()[1])
        app = create_app(service, local_names("127.0.0.1") if has_hosts else None)
        config = uvicorn.Config(
            app,
            http=patient(service.limits.idle_s),
            log_level="critical",
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_keep_alive=30,
        )
        self._server = uvicorn.Server(config)
        if grace_s is not None:
            self._server = Server(configured(app, service.limits.idle_s, grace_s=grace_s), service, grace_s)
        self._thread = threading.Thread(target=self._server.run, args=([self.socket],), daemon=True)

    def __enter__(self) -> Self:
        self.service.start()
        self._thread.start()
        wait_until(lambda: self._server.started and self.service.is_ready)
        return self

    def __exit__(self, *_: object) -> None:
        self.service.shut()
        self._server.should_exit = True
        self._thread.join(20)
        self.service.drain(20)
        self.service.close()
        self.socket.close()

    def end(self) -> None:
        """Begin the shutdown, as a signal does."""
        self._server.should_exit = True

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, timeout: float = 60
    ) -> Answer:
        """Ask; a body that is no bytes is sent as JSON, and an iterator of bytes in chunks."""
        raw, own = encoded(body)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, path, raw, own | (headers or {}), encode_chunked=isinstance(raw, Iterator))
            found = connection.getresponse()
            return Answer(found.status, {k.lower(): v for k, v in found.getheaders()}, found.read())

    def get(self, path: str, **headers: str) -> Answer:
        return self.call("GET", path, headers=headers)

    def post(self, path: str, body: Any, **more: Any) -> Answer:
        return self.call("POST", path, body, **more)

    def events(self, path: str, body: Any) -> Iterator[Event]:
        """Yield server-sent events, one that has no name as "data"."""
        raw, own = encoded(body)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("POST", path, raw, own)
            found = connection.getresponse()
            assert found.status == 200, found.read()
            yield from parsed_events(iter(found.readline, b""))

    def opened(self, path: str, body: Any, headers: dict[str, str] | None = None) -> socket.socket:
        """Send a request and return its socket, nothing of the answer read."""
        raw = json.dumps(body).encode()
        told = {"Host": "localhost", "Content-Type": "application/json", "Content-Length": len(raw)} | (headers or {})
        head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in told.items())
        found = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        found.sendall(head.encode() + b"\r\n" + raw)
        return found

    def figure(self, name: str) -> float:
        """Return a figure of /metrics, labels and all; 0 where it is not there."""
        lines = self.get("/metrics").body.decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == name), 0.0)


def made_service(model: Any, **options: Any) -> DescribeService:
    """Make a service; limits are given by their names, as are num_slots and keys."""
    own = {name: options.pop(name) for name in list(options) if name in ServiceSettings.__dataclass_fields__}
    settings = ServiceSettings(**{"num_slots": 8} | own, limits=ServiceLimits(**options))
    return DescribeService(model, packaged_cells(), settings)


def parsed_events(lines: Iterator[bytes]) -> Iterator[Event]:
    """Yield the events of a stream; lines of comment are left out."""
    name, data = "data", ""
    for line in lines:
        text = line.decode().rstrip("\n")
        if text.startswith("event: "):
            name = text.removeprefix("event: ")
        elif text.startswith("data: "):
            data = text.removeprefix("data: ")
        elif not text and data:
            yield name, data if data == "[DONE]" else json.loads(data)
            name, data = "data", ""


def encoded(body: Any) -> tuple[Any, dict[str, str]]:
    if body is None or isinstance(body, Iterator):
        return body, {}
    if isinstance(body, bytes):
        return body, {"Content-Type": "application/json"}
    return json.dumps(body).encode(), {"Content-Type": "application/json"}


def wait_until(is_so: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.005)


def assert_sentence(message: str) -> None:
    """Check that a message is one sentence that tells nothing of the server."""
    assert message.endswith("."), message
    assert message.isprintable(), repr(message)
    assert len(message) < 900, message
    for inside in ("Traceback", "/tmp/", "/home/", ".py", "site-packages", "pydantic", "cellscribe-uploads"):
        assert inside not in message, message
