"""Who gets a slot, who leaves it, and whose time is over."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anndata as ad
import pytest
from odd_backend import OddBackend
from picking import picked, texts
from running_service import assert_sentence, wait_until

from cellscribe.engine.model import Model


def test_a_client_that_leaves_frees_its_slot_before_the_next_step(odd: Any, demo: Model, cells: ad.AnnData) -> None:
    backend = OddBackend(demo)
    own = odd(backend, num_slots=2)
    backend.pause = 0.01
    sock = own.opened("/v1/describe", picked(cells, stream=True, max_new_tokens=256))
    sock.recv(100)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(own.post, "/v1/describe", picked(cells, at=1, max_new_tokens=100))
        wait_until(lambda: own.service.desk.busy == 2)
        backend.gate.clear()  # hold the step in work
        sock.close()
        wait_until(lambda: any(order.request.is_gone for _, order in own.service.desk._ledger.open_orders()))
        before = backend.count("step")
        backend.gate.set()
        wait_until(lambda: backend.count("step") > before + 3)
        slots = [active for what, active in backend.log if what == "step"]
        assert [len(active) for active in slots[before + 1 : before + 4]] == [1, 1, 1]  # after the one in work
        assert other.result().status == 200
    assert own.figure('cellscribe_cancelled_total{reason="client"}') == 1
    assert own.service.desk.busy == 0


def test_a_client_that_leaves_takes_its_cells_out_of_the_queue(odd: Any, demo: Model, cells: ad.AnnData) -> None:
    backend = OddBackend(demo, pause=0.01)
    own = odd(backend, num_slots=1)
    first = own.opened("/v1/describe", picked(cells, stream=True, max_new_tokens=256))
    wait_until(lambda: own.service.desk.busy == 1)
    second = own.opened("/v1/describe", picked(cells, 9, at=1))
    wait_until(lambda: len(own.service.queue) >= 1)
    second.close()
    wait_until(lambda: len(own.service.queue) == 0)
    assert own.service.desk.busy == 1
    first.close()
    wait_until(lambda: own.service.desk.busy == 0)
    wait_until(lambda: own.service.desk._ledger.open_orders() == [])
    assert own.figure('cellscribe_cancelled_total{reason="client"}') == 10
    assert texts(own.post("/v1/describe", picked(cells)))


def test_an_embedding_that_nobody_waits_for_is_given_up(odd: Any, demo: Model, cells: ad.AnnData) -> None:
    backend = OddBackend(demo)
    own = odd(backend, num_slots=1)
    with ThreadPoolExecutor(1) as pool:
        backend.gate.clear()
        other = pool.submit(own.post, "/v1/describe", picked(cells))
        wait_until(lambda: backend.count("admit") == 1)
        encoded = backend.count("encode")
        sock = own.opened("/v1/embed", {"source": "demo", "cell_ids": list(cells.obs_names)})
        wait_until(lambda: len(own.service.queue) == 24)
        sock.close()
        wait_until(lambda: len(own.service.queue) == 0)
        assert not own.service.desk._encoding.has_waiting
        backend.gate.set()
        assert other.result().status == 200
    assert backend.count("encode") == encoded


@pytest.mark.parametrize("cells_ahead", [0, 4])
def test_texts_go_on_while_many_cells_are_embedded(odd: Any, demo: Model, cells: ad.AnnData, cells_ahead: int) -> None:
    backend = OddBackend(demo, cells_ahead=cells_ahead)
    own = odd(backend, num_slots=1)
    with ThreadPoolExecutor(3) as pool:
        backend.gate.clear()
        text = pool.submit(own.post, "/v1/describe", picked(cells, max_new_tokens=60))
        wait_until(lambda: backend.count("admit") == 1)
        body = {"source": "demo", "cell_ids": list(cells.obs_names)}
        vectors = [pool.submit(own.post, "/v1/embed", body) for _ in range(2)]
        wait_until(lambda: len(own.service.queue) == 48 or cells_ahead)
        at = len(backend.log)
        backend.gate.set()
        assert all(len(one.result().json["results"]) == 24 for one in vectors)
        assert text.result().status == 200
    done = [what for what, _ in backend.log[at:]]
    if not cells_ahead:
        assert done.count("encode") == 6
        assert "encode encode encode" not in " ".join(done)  # two a round at most


def test_deadlines_in_the_queue_and_in_work(odd: Any, demo: Model, cells: ad.AnnData) -> None:
    backend = OddBackend(demo, pause=0.02)
    own = odd(backend, num_slots=1)
    with ThreadPoolExecutor(2) as pool:
        working = pool.submit(own.post, "/v1/describe", picked(cells, max_new_tokens=256, deadline_s=0.6))
        wait_until(lambda: own.service.desk.busy == 1)
        waiting = pool.submit(own.post, "/v1/describe", picked(cells, at=1, deadline_s=0.2))
        late, latest = waiting.result(), working.result()
    assert (late.status, latest.status) == (504, 504)
    assert "while the cell waited for a slot" in late.message
    assert "while the text was written" in latest.message
    for one in (late, latest):
        assert one.json["error"]["type"] == "timeout_error"
        assert_sentence(one.message)
    wait_until(lambda: own.service.desk.busy == 0)
    assert own.figure('cellscribe_cancelled_total{reason="deadline"}') == 2
    assert texts(own.post("/v1/describe", picked(cells, deadline_s=30)))
    assert own.post("/v1/embed", {"cells": [{"genes": {"LTB": 1}}], "deadline_s": 1e-9}).status == 504


def test_a_full_queue_is_429_and_what_never_fits_413(odd: Any, demo: Model, cells: ad.AnnData) -> None:
    backend = OddBackend(demo)
    own = odd(backend, num_slots=1, queue_cells=10, cells=10)
    backend.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(own.post, "/v1/describe", picked(cells, 1))
        wait_until(lambda: backend.count("admit") == 1)
        second = pool.submit(own.post, "/v1/describe", picked(cells, 10, at=1))
        wait_until(lambda: len(own.service.queue) == 10)
        full = own.post("/v1/describe", picked(cells, 1, at=20))
        assert (full.status, full.json["error"]["type"]) == (429, "rate_limit_error")
        assert 1 <= int(full.headers["retry-after"]) <= 60
        assert_sentence(full.message)
        assert own.post("/v1/describe", picked(cells, 11)).status == 413
        assert own.figure("cellscribe_queue_cells") == 10
        assert own.figure("cellscribe_slots_in_use") == 1
        backend.gate.set()
        assert [first.result().status, second.result().status] == [200, 200]


def test_clients_take_turns_at_the_slots(odd: Any, demo: Model, cells: ad.AnnData) -> None:
    backend = OddBackend(demo)
    own = odd(backend, num_slots=1, keys=("a", "b"))
    backend.gate.clear()
    finished: list[str] = []

    def ask(key: str, count: int, at: int) -> None:
        body = picked(cells, count, at=at, max_new_tokens=2)
        assert own.post("/v1/describe", body, headers={"Authorization": f"Bearer {key}"}).status == 200
        finished.append(key)

    many = threading.Thread(target=ask, args=("a", 20, 0))
    many.start()
    wait_until(lambda: len(own.service.queue) > 5)
    few = threading.Thread(target=ask, args=("b", 1, 20))
    few.start()
    wait_until(lambda: own.service.queue._turns.clients == 2)
    backend.gate.set()
    many.join(20)
    few.join(20)
    assert finished == ["b", "a"]


def test_a_cell_does_not_wait_behind_a_large_request_of_the_same_client(
    odd: Any, demo: Model, cells: ad.AnnData
) -> None:
    backend = OddBackend(demo)
    own = odd(backend, num_slots=1)
    backend.gate.clear()
    finished: list[int] = []

    def ask(count: int, at: int) -> None:
        assert own.post("/v1/describe", picked(cells, count, at=at, max_new_tokens=2)).status == 200
        finished.append(count)

    threads = []
    for count, at, waiting in ((20, 0, 6), (1, 20, 7)):
        threads.append(threading.Thread(target=ask, args=(count, at)))
        threads[-1].start()
        wait_until(lambda waiting=waiting: len(own.service.queue) >= waiting)  # type: ignore[misc]
    wait_until(lambda: own.service.queue._turns.requests == 2)
    backend.gate.set()
    for one in threads:
        one.join(20)
    assert finished == [1, 20]


def test_vectors_take_places_of_the_queue_and_give_them_back(odd: Any, demo: Model, cells: ad.AnnData) -> None:
    backend = OddBackend(demo)
    own = odd(backend, num_slots=1, queue_cells=20, cells=20)
    wanted = {"source": "demo", "cell_ids": list(cells.obs_names[:16])}
    backend.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        text = pool.submit(own.post, "/v1/describe", picked(cells))
        wait_until(lambda: backend.count("admit") == 1)
        late = pool.submit(own.post, "/v1/embed", wanted | {"deadline_s": 0.6})
        wait_until(lambda: own.figure("cellscribe_queue_cells") == 16)
        for path, body in (("/v1/embed", wanted), ("/v1/describe", picked(cells, 5))):
            full = own.post(path, body)
            assert (full.status, full.json["error"]["type"]) == (429, "rate_limit_error")
            assert 1 <= int(full.headers["retry-after"]) <= 60
            assert_sentence(full.message)
        assert late.result().status == 504
        assert own.figure("cellscribe_queue_cells") == 0
        vectors = pool.submit(own.post, "/v1/embed", wanted)
        wait_until(lambda: len(own.service.queue) == 16)
        backend.gate.set()
        assert [text.result().status, vectors.result().status] == [200, 200]
    assert own.figure("cellscribe_queue_cells") == 0
