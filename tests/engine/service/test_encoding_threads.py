"""Cells to embed that several threads take part in, as where the next cells are encoded ahead of the texts."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")

from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.decode.evidence import GeneAxis
from cellscribe.engine.model import Model
from cellscribe.engine.service.encoding import Encoding
from cellscribe.engine.service.orders import FedCell


class SlowEncoder:
    """Gives every cell a vector that tells it from others, after a while; several threads may be in it."""

    def __init__(self, is_bad: bool = False) -> None:
        self.seen: list[float] = []
        self._is_bad = is_bad

    def encode(self, batch: TokenBatch) -> Any:
        """Encode."""
        time.sleep(0.02)
        if self._is_bad:
            raise RuntimeError("the device is gone")
        self.seen += batch.values[:, 0].tolist()
        return SimpleNamespace(
            memory=batch.values[:, :, None], cell=np.stack([batch.values[:, 0], 1 + 0 * batch.values[:, 0]], 1)
        )


def cells(count: int) -> list[FedCell]:
    axis = GeneAxis(("A",), np.array([0]))
    return [
        FedCell(f"c{i}", np.array([1]), np.array([i], np.float32), np.array([True]), axis) for i in range(count)
    ]  # fmt: skip


def worked_off(encoding: Encoding, threads: int = 3) -> None:
    gate = threading.Barrier(threads)

    def work() -> None:
        gate.wait(10)
        while encoding.has_waiting:
            encoding.embed_some()

    with ThreadPoolExecutor(threads) as pool:
        for one in [pool.submit(work) for _ in range(threads)]:
            one.result(30)


@pytest.mark.parametrize("count", [1, 8, 12, 16, 41])
def test_threads_that_share_a_request_do_other_cells_each(demo: Model, count: int) -> None:
    encoder, told = SlowEncoder(), list[int]()
    encoding = Encoding(encoder, demo.bundle)  # type: ignore[arg-type]
    future = encoding.submit(cells(count), on_done=told.append)
    other = encoding.submit(cells(3))
    worked_off(encoding)
    found = future.result(10)
    np.testing.assert_allclose(found[:, 0] / found[:, 1], np.arange(count), rtol=1e-5)
    assert other.result(10).shape == (3, 2)
    assert sum(told) == count
    assert sorted(encoder.seen) == sorted([*range(count), *range(3)])


def test_a_request_that_fails_in_several_threads_fails_once(demo: Model) -> None:
    encoding = Encoding(SlowEncoder(is_bad=True), demo.bundle)  # type: ignore[arg-type]
    future = encoding.submit(cells(40))
    worked_off(encoding)
    with pytest.raises(RuntimeError, match="device is gone"):
        future.result(10)
