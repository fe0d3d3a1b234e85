"""Many clients of a bundle that reads sentences: shared batches, turns, deadlines, and a model that fails."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anndata as ad
import pytest
from called import LABELS, Served, called, cell_bodies, held, post, refused, wait_for

from cellscribe.engine.errors import BackendError
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.service.calls import Caller
from cellscribe.engine.service.families.base import Embedding, Item, Labelling
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.schemas import Cells


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    return ad.read_h5ad(packaged_cells())[:5].copy()


def test_clients_share_a_batch(served: Served, cells: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    service, client = served
    sizes: list[int] = []
    run = service.family.run
    monkeypatch.setattr(
        service.family, "run", lambda work, items, tick: (sizes.append(len(items)), run(work, items, tick))[1]
    )
    bodies = [{"cells": cell_bodies(cells[i : i + 2])} for i in (0, 2)]
    alone = [post(client, "embed", one)["results"] for one in bodies]
    assert sizes == [2, 2]
    with ThreadPoolExecutor(3) as pool:
        with held(service):
            asked = [pool.submit(post, client, "embed", one) for one in bodies]
            wait_for(lambda: len(service.queue) == 4)
        together = [one.result()["results"] for one in asked]
    assert together == alone
    assert sizes[2:] == [4]


def test_clients_take_turns(served: Served, cells: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for one cell is in the first batch, however many another client asked for before."""
    service, _ = served
    batches: list[list[str]] = []
    run = service.family.run

    def noted(work: Any, items: Any, tick: Any) -> Any:
        batches.append([one.name for one in items])
        return run(work, items, tick)

    monkeypatch.setattr(service.family, "run", noted)

    async def ask() -> None:
        ready = await service.read(Cells(cells=cell_bodies(cells[:1])), Embedding())
        mine, late = Item("mine", ready.items[0].payload), time.monotonic() + 60
        with held(service):
            many = service.call(ready.items * 12, ready.work, Caller("embed", "a", late))
            one = service.call([mine], ready.work, Caller("embed", "b", late))
        assert len(await many.results()) == 12
        assert len(await one.results()) == 1

    asyncio.run(ask())
    assert [len(one) for one in batches] == [8, 5]
    assert "mine" in batches[0][:2]


def test_who_leaves_waits_no_more(served: Served, cells: ad.AnnData) -> None:
    service, _ = served
    gone = service.metrics.cancelled.labels("client")._value.get()

    async def ask() -> None:
        ready = await service.read(Cells(cells=cell_bodies(cells)), Labelling())
        with held(service):
            call = service.call(ready.items, ready.work, Caller("annotate", "a", time.monotonic() + 60))
            assert len(service.queue) == 5
            call.leave()
            assert len(service.queue) == 0

    asyncio.run(ask())
    assert service.metrics.cancelled.labels("client")._value.get() == gone + 5


def test_a_batch_that_nobody_waits_for_ends(served: Served, cells: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    service, client = served
    gone = service.metrics.cancelled.labels("client")._value.get()

    def endless(_: Any, __: Any, tick: Any) -> Any:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            tick(0, 0)
        return pytest.fail("nobody ended the batch")

    async def ask() -> None:
        ready = await service.read(Cells(cells=cell_bodies(cells)), Embedding())
        with held(service):
            late = time.monotonic() + 0.3
            calls = [service.call(ready.items, ready.work, Caller("embed", "a", one)) for one in (late + 60, late)]
        wait_for(lambda: service.desk.busy == 8)
        calls[0].leave()
        with pytest.raises(RequestError, match="deadline passed while"):
            await calls[1].results()

    with monkeypatch.context() as patch:
        patch.setattr(service.family, "run", endless)
        asyncio.run(ask())
        wait_for(lambda: service.desk.busy == 0)
    assert service.metrics.cancelled.labels("client")._value.get() == gone + 5
    assert post(client, "annotate", {"cells": cell_bodies(cells[:1])})["results"][0]["status"] == "ok"


def test_deadlines_and_a_full_queue(cells: ad.AnnData) -> None:
    with called("demo-c2s", queue_cells=3, cells=3) as (service, client), ThreadPoolExecutor(2) as pool:
        body = {"cells": cell_bodies(cells[:3]), "labels": LABELS}
        status, message = refused(client, "annotate", {"cells": cell_bodies(cells)})
        assert (status, "5 cells are more than 3" in message) == (413, True)
        with held(service):
            first = pool.submit(client.post, "/v1/annotate", json=body | {"deadline_s": 0.05})
            wait_for(lambda: len(service.queue) == 3)
            full = client.post("/v1/annotate", json=body)
            assert full.status_code == 429
            assert int(full.headers["Retry-After"]) >= 1
            time.sleep(0.1)
        assert first.result().status_code == 504
        assert "deadline" in first.result().json()["error"]["message"]
        service.shut()
        assert client.post("/v1/annotate", json=body).status_code == 503
        assert client.get("/health/ready").status_code == 503


def test_a_model_that_fails_is_told_of(served: Served, cells: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    service, client = served

    def fail(*_: Any) -> Any:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(service.family, "run", fail)
        assert refused(client, "embed", {"cells": cell_bodies(cells[:1])})[0] == 500
    assert post(client, "embed", {"cells": cell_bodies(cells[:1])})["results"][0]["status"] == "ok"


def test_figures_are_counted(served: Served, cells: ad.AnnData) -> None:
    post(served[1], "annotate", {"cells": cell_bodies(cells[:2]), "labels": LABELS})
    told = served[1].get("/metrics").text
    for line in (
        'cellscribe_cells_total{status="ok",task="annotate"}',
        "cellscribe_slots 8.0",
        "cellscribe_slots_in_use 0.0",
    ):
        assert line in told
    assert 'cellscribe_requests_total{code="200",route="/v1/annotate"}' in told


def test_a_listing_does_without_a_map_where_the_model_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise BackendError("GPU 0 fell off the bus.")

    with called("demo-c2s") as (service, client):
        monkeypatch.setattr(service.family, "run", fail)
        told = client.get("/v1/cells?column=cell_type_reference").json()
        assert (told["map"], told["n_cells"]) == (None, 140)


def test_a_map_waits_in_the_queue_like_others(cells: ad.AnnData) -> None:
    with (
        called("demo-c2s", queue_cells=8, cells=8, client_share=1.0) as (service, client),
        ThreadPoolExecutor(2) as pool,
    ):
        with held(service):
            first = pool.submit(client.post, "/v1/annotate", json={"cells": cell_bodies(cells), "labels": LABELS})
            wait_for(lambda: len(service.queue) == 5)
            listing = pool.submit(client.get, "/v1/cells")
            wait_for(lambda: len(service.queue) == 7)  # a quarter of the queue at a time
            assert client.post("/v1/embed", json={"cells": cell_bodies(cells[:2])}).status_code == 429
        assert first.result().status_code == 200
        assert listing.result().json()["map"]["kind"] == "PCA of vectors"
        assert len(service.queue) == 0


def test_a_model_that_fails_again_and_again_is_given_up(cells: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise BackendError("GPU 0 fell off the bus.")

    with called("demo-c2s") as (service, client):
        monkeypatch.setattr(service.family, "run", fail)
        body = {"cells": cell_bodies(cells[:1])}
        assert [refused(client, "embed", body)[0] for _ in range(3)] == [500] * 3
        wait_for(lambda: not service.is_ready)
        status, message = refused(client, "embed", body)
        assert (status, "restart the service" in message) == (503, True)
        assert client.get("/health/live").status_code == 503
