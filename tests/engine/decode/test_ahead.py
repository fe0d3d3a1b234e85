from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from cellscribe.engine.decode.ahead import Ahead

SECONDS = 20  # nothing below waits as long, unless it is broken


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name == "cells ahead"]


@pytest.mark.parametrize("count", [0, 1, 3, 100])
def test_items_come_in_order(count: int) -> None:
    assert list(Ahead(iter(range(50)), count)) == list(range(50))
    assert threads() == []


def test_without_a_count_nothing_is_taken_before_it_is_asked_for_and_no_thread_runs() -> None:
    taken: list[tuple[int, str]] = []

    def items() -> Iterator[int]:
        for i in range(3):
            taken.append((i, threading.current_thread().name))
            yield i

    found = Ahead(items(), 0)
    next(found)
    assert taken == [(0, threading.current_thread().name)]


def test_items_are_made_while_the_last_one_is_worked_on_and_no_more_than_wanted() -> None:
    made: list[int] = []
    third, fourth = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        for i in range(10):
            made.append(i)
            if i == 2:
                third.set()
            if i == 3:
                fourth.set()
            yield i

    found = Ahead(items(), 2)
    assert next(found) == 0
    assert third.wait(SECONDS)  # two are ready while the consumer still holds the first
    assert made == [0, 1, 2]
    assert not fourth.is_set()
    assert next(found) == 1
    assert fourth.wait(SECONDS)
    found.close()


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_error_comes_after_what_was_made_before_it(count: int, error: BaseException) -> None:
    def items() -> Iterator[int]:
        yield from (0, 1, 2)
        raise error

    found = Ahead(items(), count)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(type(error)) as caught:
        next(found)
    assert caught.value is error
    assert threads() == []


def test_it_says_whether_the_next_item_is_there() -> None:
    go_on, taken = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 0
        taken.set()
        go_on.wait(SECONDS)
        yield 1

    assert Ahead(items(), 0).is_ready()
    found = Ahead(items(), 1)
    assert next(found) == 0
    assert taken.wait(SECONDS)
    assert not found.is_ready()
    go_on.set()
    assert next(found) == 1
    assert list(found) == []
    assert found.is_ready()  # the end comes without waiting


def test_leaving_early_ends_the_thread_and_closes_the_items() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    found = Ahead(items(), 4)
    next(found)
    assert threads() == ["cells ahead"]
    found.close()
    assert threads() == []
    assert closed.is_set()


def test_leaving_waits_for_the_item_in_work() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 0
        begun.set()
        go_on.wait(SECONDS)
        ended.set()
        yield 1

    found = Ahead(items(), 1)
    next(found)
    assert begun.wait(SECONDS)
    threading.Timer(0.05, go_on.set).start()
    found.close()
    assert ended.is_set()
    assert threads() == []


def test_an_interrupt_reaches_the_consumer_that_waits() -> None:
    """Ctrl-C while the consumer waits for a slow item ends both."""
    go_on, main = threading.Event(), threading.get_ident()

    def interrupt(*_: object) -> None:
        go_on.set()
        raise KeyboardInterrupt

    def items() -> Iterator[int]:
        signal.pthread_kill(main, signal.SIGINT)
        go_on.wait(SECONDS)
        yield 0

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            next(Ahead(items(), 1))
    finally:
        signal.signal(signal.SIGINT, before)
    assert threads() == []
