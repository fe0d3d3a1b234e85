"""Capture and replay, against a stand-in for torch.cuda that records what it is asked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from cellscribe.engine.backends.cuda.graphs import StepGraphs


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


class Run:
    """Steps that record themselves, and the freeze around them."""

    def __init__(self, device: str) -> None:
        self.cuda = FakeCuda()
        self.graphs = StepGraphs(SimpleNamespace(cuda=self.cuda), SimpleNamespace(type=device))
        self.error: Exception | None = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        self.cuda.log.append("freeze")
        yield
        self.cuda.log.append("thaw")

    def steps(self, rows: int, one_is_enough: bool) -> None:
        if self.error is not None:
            raise self.error
        self.cuda.log.append((rows, "one" if one_is_enough else "all"))

    def __call__(self, rows: int) -> None:
        self.graphs.run(rows, self.steps, self.frozen)


def test_a_number_of_rows_is_captured_once_after_a_step_that_changes_nothing() -> None:
    run = Run("cuda")
    run(4)
    first = ["freeze", (4, "one"), "thaw", "synchronize", ("capture", None, "thread_local"), (4, "all"), "captured"]
    assert run.cuda.log == [*first, "replay"]
    run(4)
    assert run.cuda.log == [*first, "replay", "replay"]
    run(8)
    assert ("capture", "pool", "thread_local") in run.cuda.log  # graphs share their memory


def test_a_capture_that_fails_is_tried_again() -> None:
    run = Run("cuda")
    run.error = RuntimeError("CUDA error: out of memory")
    with pytest.raises(RuntimeError):
        run(4)
    run.error = None
    run(4)
    assert run.cuda.log[-1] == "replay"


def test_without_a_gpu_the_steps_run_as_they_are() -> None:
    run = Run("cpu")
    run(4)
    run(4)
    assert run.cuda.log == [(4, "all"), (4, "all")]
