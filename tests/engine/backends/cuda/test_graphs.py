"""Capture and replay, against a stand-in for torch.cuda that records what it is asked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from cellscribe.engine.backends.cuda.graphs import StepGraphs, bucket


class FakeCuda:
    def __init__(self) -> None:
        self.log: list[Any] = []

    def synchronize(self, device: Any) -> None:
        self.log.append("synchronize")

    def CUDAGraph(self) -> Any:  # noqa: N802
        return SimpleNamespace(replay=lambda: self.log.append("replay"), pool=lambda: "pool")

    @contextlib.contextmanager
    def graph(self, graph: Any, pool: Any, capture_error_mode: str) -> Iterator[None]:
        self.log.append(("capture", pool, capture_error_mode))
        yield
        self.log.append("captured")


def graphs(device: str) -> tuple[StepGraphs, FakeCuda]:
    cuda = FakeCuda()

    @contextlib.contextmanager
    def frozen() -> Iterator[None]:
        cuda.log.append("freeze")
        yield
        cuda.log.append("thaw")

    run = StepGraphs(
        SimpleNamespace(cuda=cuda), SimpleNamespace(type=device), lambda rows: cuda.log.append(rows), frozen
    )
    return run, cuda


def test_a_number_of_rows_is_captured_once_after_a_run_that_changes_nothing() -> None:
    steps, cuda = graphs("cuda")
    steps.run(4)
    first = ["freeze", 4, "thaw", "synchronize", ("capture", None, "thread_local"), 4, "captured", "replay"]
    assert cuda.log == first
    steps.run(4)
    assert cuda.log == [*first, "replay"]
    steps.run(8)
    assert ("capture", "pool", "thread_local") in cuda.log  # graphs share their memory


def test_without_a_gpu_the_steps_run_as_they_are() -> None:
    steps, cuda = graphs("cpu")
    steps.run(4)
    steps.run(4)
    assert cuda.log == [4, 4]


@pytest.mark.parametrize(
    ("rows", "slots", "expected"), [(1, 96, 1), (3, 96, 4), (9, 96, 16), (90, 96, 96), (90, 92, 92), (512, 512, 512)]
)
def test_rows_are_rounded_up_to_few_sizes(rows: int, slots: int, expected: int) -> None:
    assert bucket(rows, slots) == expected
