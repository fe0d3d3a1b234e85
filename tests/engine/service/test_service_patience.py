"""Clients that do not read what they asked for."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pytest
from odd_backend import OddBackend
from picking import picked
from running_service import Running, wait_until

from cellscribe.engine.model import Model
from cellscribe.engine.service import mailbox
from cellscribe.engine.service.mailbox import Mailbox
from cellscribe.engine.service.orders import Lost, Token
from cellscribe.engine.types import Piece, TopGenes


def token(number: int, genes: int) -> Token:
    piece = Piece("word", number, -0.5, TopGenes(), TopGenes())
    return Token(0, number, piece, np.zeros(genes, np.float32))


def unread(running: Running, body: dict[str, Any]) -> socket.socket:
    """Send a request from a socket whose buffers are small, and read nothing."""
    plain = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        plain(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        return running.opened("/v1/describe", body)


def test_who_never_reads_a_stream_loses_slot_and_connection(serving: Callable[..., Running], cells: ad.AnnData) -> None:
    own = serving(idle_s=0.5, num_slots=4)
    own.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)  # what it accepts has it, too
    body = picked(cells, 24, stream=True, grid=True, max_new_tokens=256)
    sock = unread(own, body)
    wait_until(lambda: own.service.desk.busy > 0)
    wait_until(lambda: own.service.desk.busy == 0 and len(own.service.queue) == 0)
    wait_until(lambda: not own._server.server_state.connections)  # nor does it wait for the rest to be read
    sock.close()
    assert own.post("/v1/describe", picked(cells)).status == 200


def test_who_reads_slowly_gets_all(serving: Callable[..., Running], cells: ad.AnnData) -> None:
    own = serving(idle_s=1.0, num_slots=8)
    own.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    with unread(own, picked(cells, 8, stream=True, grid=True)) as sock:
        told = b""
        until = time.monotonic() + 30
        while b"event: done" not in told[-2_000:] and time.monotonic() < until:
            time.sleep(0.01)
            told += sock.recv(32_768)
    assert told.count(b"event: result") == 8


def test_a_large_answer_that_is_read_slowly_is_not_cut(serving: Callable[..., Running]) -> None:
    own = serving(idle_s=0.3)
    own.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    whole = own.get("/openapi.json").body
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.connect(("127.0.0.1", own.port))
        sock.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        began, told = time.monotonic(), b""
        step = max(1_024, len(whole) // 60)
        while part := sock.recv(step):
            told += part
            time.sleep(0.02)
    assert time.monotonic() - began > 3 * 0.3
    assert told.endswith(whole)


def test_events_that_nobody_reads_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "_MOST_BYTES", 100_000)

    async def fill() -> None:
        box = Mailbox()
        for i in range(15):
            box.take([token(i, 1_000)])
        assert len(await box.read()) == 15
        assert not box.is_gone
        for i in range(500):
            box.take([token(i, 1_000)])
        assert box.is_gone
        (last,) = await box.read()
        assert isinstance(last, Lost)
        assert last.status == 408
        assert last.message.endswith(".")
        box.take([token(0, 1_000)])
        assert await box.read(0.01) == []

    asyncio.run(fill())


def test_the_slots_of_who_does_not_read_are_freed(
    odd: Any, demo: Model, cells: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailbox, "_MOST_BYTES", 200_000)
    own: Running = odd(OddBackend(demo, pause=0.001), num_slots=8)
    own.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    with unread(own, picked(cells, 24, stream=True, grid=True, max_new_tokens=256)) as sock:
        wait_until(lambda: own.service.desk.busy > 0)
        wait_until(lambda: own.service.desk.busy == 0 and len(own.service.queue) == 0)  # the connection is there still
        assert own._server.server_state.connections
        told = b""
        while part := sock.recv(1 << 20):
            told += part
            if b"event: error" in told:
                break
    assert b"were not read" in told
