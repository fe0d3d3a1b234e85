"""Open slots that texts of all clients share: who is in them, who leaves them, and when they are opened anew."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anndata as ad
import pytest
from called import cell_bodies, held, wait_for
from starlette.testclient import TestClient

from cellscribe.engine.errors import BackendError
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.service.calling import CallService
from cellscribe.engine.service.calls import Call, Caller
from cellscribe.engine.service.families.base import Question
from cellscribe.engine.service.families.sentences import Sentences
from cellscribe.engine.service.families.speaking import Room
from cellscribe.engine.service.orders import Begun, Token
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.schemas import Cells
from cellscribe.engine.types import Sampling

Served = tuple[CallService, TestClient]
ENDLESS = Question("Which type?", Sampling(), 200)


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    return ad.read_h5ad(packaged_cells())[:4].copy()


@pytest.fixture
def slow(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every token take a while, and no text end by itself."""
    lane, family = served[0].desk._lane, served[0].family
    assert lane is not None
    assert isinstance(family, Sentences)
    hear = lane._hear
    monkeypatch.setattr(family.speaker, "eos_ids", frozenset())
    monkeypatch.setattr(lane, "_hear", lambda event: (time.sleep(0.01), hear(event))[1])


def text_of(client: TestClient, path: str, body: dict[str, Any]) -> Any:
    found = client.post(f"/v1/{path}", json=body)
    assert found.status_code == 200, found.text
    told = found.json()
    return told["choices"] if "choices" in told else told["results"]


async def asked(service: CallService, cells: ad.AnnData, wait_s: float = 60.0) -> Call:
    ready = await service.read(Cells(cells=cell_bodies(cells)), ENDLESS)
    return service.call(ready.items, ready.work, Caller("chat", "a", time.monotonic() + wait_s, wants_tokens=True))


def test_unlike_texts_are_in_slots_together(served: Served, cells: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    service, client = served
    lane = service.desk._lane
    assert lane is not None
    said = {"messages": [{"role": "user", "content": "Which type?"}], "cell": cell_bodies(cells[2:3])[0]}
    wanted = [
        ("annotate", {"cells": cell_bodies(cells[:1]), "labels": ["B cell", "T cell"], "scores": True}),
        ("annotate", {"cells": cell_bodies(cells[1:2]), "max_new_tokens": 20}),
        ("chat/completions", said | {"temperature": 0.8, "seed": 3, "max_tokens": 30}),
        ("chat/completions", said | {"max_tokens": 12}),
    ]
    alone = [text_of(client, *one) for one in wanted]
    most, hear = 0, lane._hear

    def noted(event: Any) -> None:
        nonlocal most
        most = max(most, len(lane._orders))
        hear(event)

    monkeypatch.setattr(lane, "_hear", noted)
    with ThreadPoolExecutor(4) as pool:
        with held(service):
            waiting = [pool.submit(text_of, client, *one) for one in wanted]
            wait_for(lambda: len(service.queue) == 4)
        assert [one.result() for one in waiting] == alone
    assert most == 4


def test_who_comes_later_shares_the_slots(served: Served, cells: ad.AnnData, slow: None) -> None:
    service, _ = served

    async def ask() -> None:
        first = await asked(service, cells[:1])
        await anext(first.happenings())
        wait_for(lambda: service.desk.busy == 1)
        second = await asked(service, cells[1:2])
        wait_for(lambda: service.desk.busy == 2)
        first.leave()
        wait_for(lambda: service.desk.busy == 1)
        found = [one async for one in second.happenings() if isinstance(one, Begun | Token)]
        assert isinstance(found[0], Begun)
        assert [one.number for one in found[1:] if isinstance(one, Token)] == list(range(200))

    gone = service.metrics.cancelled.labels("client")._value.get()
    asyncio.run(ask())
    assert service.metrics.cancelled.labels("client")._value.get() == gone + 1


def test_a_deadline_frees_the_slot(served: Served, cells: ad.AnnData, slow: None) -> None:
    service, _ = served

    async def ask() -> None:
        call = await asked(service, cells[:2], 0.2)
        with pytest.raises(RequestError, match="deadline passed while the cell was worked on"):
            await call.results()

    began = time.monotonic()
    asyncio.run(ask())
    wait_for(lambda: service.desk.busy == 0)
    assert time.monotonic() - began < 1.5


def test_slots_are_as_large_as_they_must_be(served: Served, cells: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    service, client = served
    family = service.family
    assert isinstance(family, Sentences)
    rooms: list[Room] = []
    open_ = family.speaker.open
    monkeypatch.setattr(family.speaker, "open", lambda room, num_slots: (rooms.append(room), open_(room, num_slots))[1])
    service.desk._lane.close()  # type: ignore[union-attr]
    small = {"cells": [{"genes": {"CD3D": 3, "LTB": 2}}], "max_new_tokens": 4}
    large = {"cells": cell_bodies(cells), "max_new_tokens": 100}
    for body in (small, small, large, small):
        text_of(client, "annotate", body)
    assert len(rooms) == 2
    assert rooms[0].text < 100 <= rooms[1].text


def test_rooms() -> None:
    assert Room(10, 5).fits(Room(10, 5, 3))
    assert not Room(10, 5, 4).fits(Room(10, 5, 3))
    assert Room(300, 32, 8).rounded(1024) == Room(512, 64, 64)
    assert Room(990, 32).rounded(1024) == Room(990, 34, 64)


def test_a_device_that_fails_loses_what_it_had(
    served: Served, cells: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, client = served
    family = service.family
    assert isinstance(family, Sentences)

    def fail(*_: Any) -> Any:
        raise BackendError("GPU 0 fell off the bus.")

    body = {"cells": cell_bodies(cells), "max_new_tokens": 8}
    with monkeypatch.context() as patch:
        patch.setattr(family.speaker, "request", fail)
        found = client.post("/v1/annotate", json=body)
    assert (found.status_code, "fell off the bus" in found.text) == (500, True)
    assert len(text_of(client, "annotate", body)) == 4
    assert service.desk.is_ready
