"""Requests end when their time is over or their client leaves, whatever they wait for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anndata as ad
import pytest
from picking import picked
from running_service import Running, assert_sentence, wait_until

from cellscribe.engine.service import threads
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.threads import Threads
from cellscribe.engine.service.visits import VISIT, Visit

BODY = b'{"cells": [{"genes": {"LTB": 1}}], "deadline_s": 0.3}'


@contextmanager
def occupied(running: Running) -> Iterator[None]:
    """Let no thread that reads cells be free."""
    end = threading.Event()
    for _ in range(threads._READING):
        running.service.threads._reading.submit(end.wait, 30)
    try:
        yield
    finally:
        end.set()


@pytest.mark.parametrize("path", ["/v1/describe", "/v1/embed"])
def test_a_deadline_counts_while_cells_wait_to_be_read(running: Running, cells: ad.AnnData, path: str) -> None:
    body = {key: value for key, value in picked(cells).items() if key != "max_new_tokens"}
    with occupied(running):
        began = time.monotonic()
        found = running.post(path, body | {"deadline_s": 0.2})
        assert (found.status, found.json["error"]["type"]) == (504, "timeout_error")
        assert time.monotonic() - began < 5
        assert_sentence(found.message)


def test_who_leaves_while_cells_wait_to_be_read_is_not_read_for(
    running: Running, cells: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Any] = []
    monkeypatch.setattr(running.service, "of_file", lambda *asked: read.append(asked))
    waiting = running.service.threads._reading._work_queue
    with occupied(running):
        sock = running.opened("/v1/describe", picked(cells))
        wait_until(lambda: waiting.qsize() == 1)
        path = 'cellscribe_requests_total{code="499",route="/v1/describe"}'
        before = running.figure(path)
        sock.close()
        wait_until(lambda: running.figure(path) == before + 1)
    wait_until(lambda: waiting.qsize() == 0)
    assert read == []


def test_a_deadline_counts_from_the_arrival(serving: Callable[..., Running]) -> None:
    own = serving(num_slots=1)

    def slowly() -> Iterator[bytes]:
        yield BODY[:10]
        time.sleep(0.5)
        yield BODY[10:]

    headers = {"Content-Type": "application/json"}
    assert own.call("POST", "/v1/describe", slowly(), headers).status == 504


def test_what_comes_too_late_is_undone() -> None:
    pools, go, undone = Threads(), threading.Event(), list[str]()

    def work() -> str:
        go.wait(10)
        return "a file"

    async def ask() -> None:
        VISIT.set(Visit(deadline=time.monotonic() + 0.05))
        with pytest.raises(RequestError, match="deadline passed while the cells were made ready") as late:
            await pools.use_file(work, undone.append)
        assert late.value.status == 504
        assert undone == []
        go.set()

    asyncio.run(ask())
    wait_until(lambda: undone == ["a file"])
    pools.close()


def test_what_nobody_waits_for_is_not_begun_any_more() -> None:
    pools, go, begun = Threads(), threading.Event(), list[str]()

    async def ask() -> None:
        VISIT.set(Visit(deadline=time.monotonic() + 0.05))
        for _ in range(threads._READING):
            pools._reading.submit(go.wait, 10)
        with pytest.raises(RequestError, match="deadline passed"):
            await pools.read(lambda: begun.append("read"))
        go.set()
        pools._reading.shutdown()  # the loop has no time to tell of anything

    asyncio.run(ask())
    assert begun == []
    pools.close()


def test_an_error_of_the_work_is_its_own() -> None:
    pools, undone = Threads(), list[Any]()

    def fail() -> None:
        raise KeyError("x")

    async def ask() -> str:
        with pytest.raises(KeyError):
            await pools.use_file(fail, undone.append)
        return await pools.read(lambda: "fine")

    assert asyncio.run(ask()) == "fine"
    assert undone == []
    pools.close()


def test_a_visit_begins_again() -> None:
    one = Visit(arrived=0.0, deadline=5.0)
    one.begin_again()
    assert one.deadline - one.arrived == pytest.approx(5.0)
    assert one.arrived == pytest.approx(time.monotonic(), abs=1.0)


def test_files_that_are_opened_or_listed_do_not_keep_cells_from_being_read(running: Running, cells: ad.AnnData) -> None:
    end = threading.Event()
    for _ in range(4 * threads._FILES):
        running.service.threads._files.submit(end.wait, 30)
    try:
        assert running.post("/v1/describe", picked(cells, 3, deadline_s=10)).status == 200
    finally:
        end.set()
