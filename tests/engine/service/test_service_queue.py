from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from cellscribe.engine.decode.evidence import GeneAxis
from cellscribe.engine.service.orders import FedCell, Happening, Order
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.queue import FairQueue

FAR = 1e18
CELL = FedCell("c", np.zeros(1, np.int64), np.zeros(1, np.float32), np.ones(1, bool), GeneAxis((), np.zeros(0, int)))


class Box:
    """A request that listens to nothing."""

    is_gone = False

    def deliver(self, happenings: list[Happening]) -> None:
        pass


def orders(client: str, count: int, *, box: Any = None, deadline: float = FAR) -> list[Order]:
    shared = box or Box()
    return [Order(shared, i, CELL, client, deadline) for i in range(count)]


def taken(queue: FairQueue) -> list[tuple[str, int]]:
    found = []
    while (one := queue.take()) is not None:
        found.append((one.client, one.cell))
    return found


def test_clients_take_turns_and_each_keeps_its_order() -> None:
    queue = FairQueue(10)
    assert queue.put(orders("many", 4)) == 0
    assert queue.put(orders("few", 1)) == 4
    assert queue.put(orders("some", 2)) == 5
    assert taken(queue) == [("many", 0), ("few", 0), ("some", 0), ("many", 1), ("some", 1), ("many", 2), ("many", 3)]
    assert len(queue) == 0


def test_who_comes_while_another_is_served_does_not_wait_for_all_of_it() -> None:
    queue = FairQueue(200)
    queue.put(orders("many", 100))
    assert queue.take() is not None
    queue.put(orders("one", 1))
    assert [order.client for order in (queue.take(), queue.take()) if order] == ["many", "one"]


def test_a_full_queue_says_when_to_come_again_and_takes_all_of_a_request_or_nothing() -> None:
    queue = FairQueue(4)
    queue.put(orders("a", 3))
    with pytest.raises(RequestError, match="3 cells are waiting already, and 2 more do not fit the 4") as refused:
        queue.put(orders("b", 2))
    assert refused.value.status == 429
    assert 1 <= int(refused.value.headers()["Retry-After"]) <= 60
    assert len(queue) == 3
    queue.put(orders("b", 1))
    assert len(queue) == 4


def test_the_wait_that_is_advised_follows_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("cellscribe.engine.service.queue.time", type("Clock", (), {"monotonic": lambda: clock[0]}))
    queue = FairQueue(100)
    queue.put(orders("a", 100))
    for _ in range(10):
        queue.take()
        clock[0] += 1.0  # one cell a second
    with pytest.raises(RequestError) as refused:
        queue.put(orders("b", 25))
    assert refused.value.retry_after_s == 15
    with pytest.raises(RequestError) as refused:
        queue.put(orders("b", 100))
    assert refused.value.retry_after_s == 60


def test_what_can_never_fit_is_not_told_to_come_again() -> None:
    with pytest.raises(RequestError, match="5 cells are more than the 4 that may wait") as refused:
        FairQueue(4).put(orders("a", 5))
    assert refused.value.status == 413
    assert refused.value.headers() == {}


def test_discarding_takes_one_request_and_leaves_the_others_of_its_client() -> None:
    queue, gone, stays = FairQueue(10), Box(), Box()
    queue.put(orders("a", 2, box=gone))
    queue.put(orders("a", 1, box=stays))
    queue.put(orders("b", 1))
    assert [one.cell for one in queue.discard(gone)] == [0, 1]
    assert queue.discard(gone) == []
    assert len(queue) == 2
    assert taken(queue) == [("a", 0), ("b", 0)]


def test_a_request_is_overdue_as_a_whole() -> None:
    queue, late = FairQueue(10), Box()
    queue.put(orders("a", 2, box=late, deadline=5.0))
    queue.put(orders("a", 1, deadline=7.0))
    assert queue.overdue(5.0) == []
    assert [one.request for one in queue.overdue(6.0)] == [late, late]
    assert len(queue) == 1
    queue.put(orders("b", 1, deadline=6.5))
    assert [one.client for one in queue.overdue(6.8)] == ["b"]
    assert [one.client for one in queue.overdue(7.1)] == ["a"]
    assert queue.overdue(9.0) == []


def test_a_closed_queue_refuses_new_orders_and_still_gives_out_the_old() -> None:
    queue = FairQueue(10)
    queue.put(orders("a", 2))
    queue.close()
    assert queue.is_closed
    with pytest.raises(RequestError, match="shutting down") as refused:
        queue.put(orders("a", 1))
    assert (refused.value.status, refused.value.headers()) == (503, {"Retry-After": "10"})
    assert len(taken(queue)) == 2
    assert queue.take(until=lambda: False) is None  # does not wait


@pytest.mark.parametrize("what", ["put", "close", "wake"])
def test_who_waits_is_woken(what: str) -> None:
    queue, found, is_enough = FairQueue(10), list[Order | None](), threading.Event()
    waiting = threading.Thread(target=lambda: found.append(queue.take(until=is_enough.is_set)))
    waiting.start()
    time.sleep(0.02)
    assert not found
    if what == "put":
        queue.put(orders("a", 1))
    elif what == "close":
        queue.close()
    else:
        is_enough.set()
        queue.wake()
    waiting.join(5)
    assert [one is not None for one in found] == [what == "put"]


def test_threads_share_a_queue_without_loss() -> None:
    queue, found = FairQueue(10_000), list[Order]()

    def take() -> None:
        while (one := queue.take(until=lambda: False)) is not None:
            found.append(one)

    takers = [threading.Thread(target=take) for _ in range(3)]
    givers = [threading.Thread(target=lambda: [queue.put(orders("c", 3)) for _ in range(50)]) for _ in range(4)]
    for one in takers + givers:
        one.start()
    for one in givers:
        one.join()
    queue.close()
    for one in takers:
        one.join(5)
    assert (len(found), len(queue)) == (600, 0)


def test_requests_of_a_client_take_turns_too() -> None:
    queue, large, small, other = FairQueue(300), Box(), Box(), Box()
    queue.put(orders("a", 256, box=large))
    queue.put(orders("a", 1, box=small))
    queue.put(orders("b", 2, box=other))
    found = [queue.take() for _ in range(5)]
    assert [one.request for one in found if one] == [large, other, small, other, large]
    assert len(queue) == 254


def test_one_client_leaves_room_for_the_next_ones() -> None:
    queue = FairQueue(64, share=0.5)
    for box_count, client in ((32, "a"), (16, "b"), (8, "c")):
        queue.put(orders(client, 1))
        for _ in range(box_count - 1):
            queue.put(orders(client, 1))
        with pytest.raises(RequestError, match=rf"{box_count} cells of yours and .* of others are waiting") as full:
            queue.put(orders(client, 1))
        assert full.value.status == 429
        assert 1 <= int(full.value.headers()["Retry-After"]) <= 60
    for _ in range(16):  # what others give back can be taken again
        queue.take()
    queue.put(orders("c", 1))


def test_a_first_request_takes_no_more_than_its_share_and_a_sole_client_has_all() -> None:
    queue = FairQueue(10, share=0.5)
    with pytest.raises(RequestError, match="0 cells of yours and 0 of others are waiting, and 9 more are above the 5"):
        queue.put(orders("a", 9))
    queue.put(orders("a", 5))
    queue.put(orders("b", 2))
    queue.put(orders("c", 1))
    alone = FairQueue(10)
    for _ in range(10):
        alone.put(orders("a", 1))


def test_room_can_be_asked_for_without_taking_it() -> None:
    queue = FairQueue(4, share=0.5)
    queue.check("a", 2)
    queue.check("a", 2)
    assert len(queue) == 0
    with pytest.raises(RequestError, match="above the 2 that one client may have"):
        queue.check("a", 3)
    queue.put(orders("a", 2))
    queue.put(orders("b", 1))
    queue.put(orders("c", 1))
    with pytest.raises(RequestError, match="4 cells are waiting already") as full:
        queue.check("d", 1)
    assert full.value.status == 429
    queue.close("it ends.")
    with pytest.raises(RequestError, match="it ends"):
        queue.check("a", 1)


def test_held_places_count_until_they_are_freed() -> None:
    queue = FairQueue(10, share=0.5)
    hold = queue.hold("a", 4)
    assert len(queue) == 4
    assert queue.take() is None
    for many in (lambda: queue.put(orders("b", 7)), lambda: queue.hold("b", 7), lambda: queue.put(orders("a", 2))):
        with pytest.raises(RequestError) as refused:
            many()
        assert refused.value.status == 429
    queue.free(hold, 3)
    assert len(queue) == 1
    queue.free(hold)
    queue.free(hold, 5)
    assert len(queue) == 0
    queue.close()
    with pytest.raises(RequestError, match="shutting down"):
        queue.hold("a", 1)


def test_taking_looks_at_few_of_many() -> None:
    queue, looks = FairQueue(5_000), 0

    def fits(order: Order) -> bool:
        nonlocal looks
        looks += 1
        return False

    for _ in range(2_000):
        queue.put(orders("a", 2))
    assert queue.take(fits=fits) is None
    assert looks <= 16
    began = time.perf_counter()
    assert len(taken(queue)) == 4_000
    assert time.perf_counter() - began < 1.0
