"""Bodies that are sent slowly: what a client may take, and until when."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running_service import Running, wait_until

HDF5 = "application/x-hdf5"


def dripped(sock: socket.socket, seconds: float) -> bytes:
    """Send byte after byte until there is an answer, and return it."""
    began, answer = time.monotonic(), b""
    sock.settimeout(0.05)
    while not answer and time.monotonic() - began < seconds:
        sock.sendall(b" ")
        with contextlib.suppress(TimeoutError):
            answer = sock.recv(2_000)
    return answer


def test_a_client_that_drips_for_ever_is_408(serving: Callable[..., Running]) -> None:
    impatient = serving(idle_s=0.3)
    with impatient.opened("/v1/embed", {}, {"Content-Length": 10_000}) as sock:
        answer = dripped(sock, 5.0)
        assert b"408" in answer.split(b"\r\n")[0]
        assert b"more slowly than 4,096 bytes a second" in answer


@pytest.mark.parametrize(
    ("path", "kind", "limits", "status", "words"),
    [
        ("/v1/describe?deadline_s=0.4", HDF5, {}, b"504", b"the deadline passed while the body was being sent"),
        ("/v1/embed", "application/json", {"deadline_s": 0.4}, b"504", b"the deadline passed while the body"),
        ("/v1/uploads", HDF5, {"sending_s": 0.4, "deadline_s": 30.0}, b"408", b"the file was not here after 0.4 s"),
    ],
)
def test_sending_ends_at_the_deadline(
    serving: Callable[..., Running], path: str, kind: str, limits: dict[str, float], status: bytes, words: bytes
) -> None:
    own = serving(idle_s=20.0, **limits)
    with own.opened(path, {}, {"Content-Type": kind, "Content-Length": 10**7}) as sock:
        answer = dripped(sock, 10.0)
    assert status in answer.split(b"\r\n")[0]
    assert words in answer
    wait_until(lambda: own.service.files._under_way.total() == 0)
    assert list(Path(own.service.files._folder.name).iterdir()) == []


def test_a_file_may_take_longer_to_come_than_a_request(serving: Callable[..., Running], cells_path: Path) -> None:
    own, raw = serving(deadline_s=1.0), cells_path.read_bytes()

    def slowly() -> Iterator[bytes]:
        yield raw[:-100]
        time.sleep(1.2)
        yield raw[-100:]

    assert own.call("POST", "/v1/uploads", slowly(), {"Content-Type": HDF5}).status == 201
