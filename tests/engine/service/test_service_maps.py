"""Maps for listings: made once, in their turn, and of no harm to anybody else."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from odd_backend import OddBackend
from picking import picked
from running_service import Running, wait_until

from cellscribe.engine.errors import BackendError
from cellscribe.engine.model import Model
from cellscribe.engine.service import mapping
from cellscribe.engine.service.cell_file import CellFile
from cellscribe.engine.service.limits import ServiceLimits
from cellscribe.engine.service.mapping import Maps
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.threads import Threads


class Embedder:
    """Gives vectors, or fails; counts how often it is asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.asked, self.clients = error, 0, list[str]()
        self.go: asyncio.Event | None = None

    async def __call__(self, file: CellFile, rows: np.ndarray, client: str) -> np.ndarray:
        self.asked += 1
        self.clients.append(client)
        if self.go is not None:
            await self.go.wait()
        if self.error is not None:
            raise self.error
        return np.random.default_rng(7).normal(size=(len(rows), 4)).astype(np.float32)


@pytest.fixture
def file(cells_path: Path) -> Any:
    found = CellFile("f", cells_path, "few.h5ad", "auto", ServiceLimits().reading)
    yield found
    found.close()


def made(embedder: Embedder, file: CellFile, asks: int = 1, most: int = 100) -> list[Any]:
    """Ask for the map of a file several times at once."""

    async def ask() -> list[Any]:
        maps = Maps(Threads(), embedder, most, 10)
        return await asyncio.gather(*(maps.of(file, f"client {i}") for i in range(asks)))

    return asyncio.run(ask())


def test_a_map_is_made_once_for_all_who_wait(file: CellFile) -> None:
    embedder = Embedder()
    found = made(embedder, file, asks=3)
    assert embedder.asked == 3  # portions of 10, of 24 cells
    assert embedder.clients == ["client 0"] * 3
    assert all(one is found[0] for one in found)
    assert found[0][1].shape == (24, 2)
    assert made(embedder, file)[0] is found[0]
    assert embedder.asked == 3


@pytest.mark.parametrize("error", [BackendError("gone."), RequestError(500, "it failed."), TimeoutError()])
def test_that_there_is_no_map_is_remembered(file: CellFile, error: Exception) -> None:
    embedder = Embedder(error)
    assert made(embedder, file) == [None]
    assert made(embedder, file) == [None]
    assert embedder.asked == 1


def test_too_many_cells_are_not_embedded_for_a_map(file: CellFile) -> None:
    embedder = Embedder()
    assert made(embedder, file, most=23) == [None]
    assert embedder.asked == 0


@pytest.mark.parametrize("status", [429, 503])
def test_where_there_was_no_room_a_map_is_tried_again(file: CellFile, status: int) -> None:
    embedder = Embedder(RequestError(status, "later."))
    assert made(embedder, file) == [None]
    embedder.error = None
    assert made(embedder, file)[0] is not None


def test_a_map_that_takes_too_long_is_not_made(file: CellFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "_SECONDS", 0.05)

    async def ask() -> None:
        embedder = Embedder()
        embedder.go = asyncio.Event()
        maps = Maps(Threads(), embedder, 100, 10)
        assert await maps.of(file, "a") is None
        assert await maps.of(file, "a") is None
        assert embedder.asked == 1

    asyncio.run(ask())


def test_a_map_goes_on_for_those_who_stay_and_ends_with_the_last(file: CellFile) -> None:
    async def ask() -> None:
        embedder = Embedder()
        embedder.go = asyncio.Event()
        maps = Maps(Threads(), embedder, 100, 10)
        waiting = [asyncio.create_task(maps.of(file, str(i))) for i in range(2)]
        while not embedder.asked:
            await asyncio.sleep(0.005)
        waiting[0].cancel()
        await asyncio.sleep(0.01)
        embedder.go.set()
        assert await waiting[1] is not None
        file.extras.clear()
        embedder.go.clear()
        asked = embedder.asked
        last = asyncio.create_task(maps.of(file, "2"))
        while embedder.asked == asked:
            await asyncio.sleep(0.005)
        last.cancel()
        await asyncio.sleep(0.01)
        embedder.go.set()
        await asyncio.sleep(0.05)
        assert embedder.asked == asked + 1
        assert await maps.of(file, "3") is not None

    asyncio.run(ask())


def test_listings_that_wait_for_maps_stop_nobody(odd: Any, demo: Model, cells: ad.AnnData, cells_path: Path) -> None:
    backend = OddBackend(demo)
    own: Running = odd(backend, num_slots=8)
    backend.gate.clear()
    headers, raw = {"Content-Type": "application/x-hdf5"}, cells_path.read_bytes()
    with ThreadPoolExecutor(8) as pool:
        text = pool.submit(own.post, "/v1/describe", picked(cells))
        wait_until(lambda: backend.count("admit") == 1)
        listings = [pool.submit(own.get, "/v1/cells") for _ in range(3)]
        uploads = [pool.submit(own.post, "/v1/uploads", raw, headers=headers) for _ in range(3)]
        wait_until(lambda: len(own.service.queue) >= 8 * 4)  # a portion each, and the demo's once
        began = time.monotonic()
        waiting = pool.submit(own.post, "/v1/describe", picked(cells, 3, at=3, deadline_s=30))
        wait_until(lambda: len(own.service.queue) + own.service.desk.busy >= 8 * 4 + 4)
        assert time.monotonic() - began < 5
        backend.gate.set()
        assert [one.result().status for one in [text, waiting, *listings]] == [200] * 5
        assert [one.result().status for one in uploads] == [201] * 3
        assert all(one.result().json["map"]["kind"] == "PCA of vectors" for one in [*listings, *uploads])
    assert len(own.service.queue) == 0


def test_a_listing_without_room_for_its_map_has_none(odd: Any, demo: Model, cells: ad.AnnData) -> None:
    backend = OddBackend(demo)
    own: Running = odd(backend, num_slots=1, queue_cells=8, cells=8)
    backend.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(own.post, "/v1/describe", picked(cells))
        wait_until(lambda: backend.count("admit") == 1)
        second = pool.submit(own.post, "/v1/describe", picked(cells, 8, at=1))
        wait_until(lambda: len(own.service.queue) == 8)
        assert own.get("/v1/cells").json["map"] is None
        backend.gate.set()
        assert [first.result().status, second.result().status] == [200, 200]
    assert own.get("/v1/cells").json["map"] is not None
