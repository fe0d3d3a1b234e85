"""Capture and replay, against a stand-in for torch.cuda that records what it is asked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from cellscribe.engine.backends.cuda.graphs import StepGraph


class FakeCuda:
    def __init__(self) -> None:
        self.log: list[Any] = []

    def synchronize(self, device: Any) -> None:
        self.log.append("synchronize")

    def CUDAGraph(self) -> Any:  # noqa: N802
        return SimpleNamespace(replay=lambda: self.log.append("replay"))

    @contextlib.contextmanager
    def graph(self, graph: Any, capture_error_mode: str) -> Iterator[None]:
        self.log.append(("capture", capture_error_mode))
        yield
        self.log.append("captured")


class Run:
    """Steps that record themselves, and the freeze around them."""

    def __init__(self, device: str) -> None:
        self.cuda = FakeCuda()
        self.graph = StepGraph(SimpleNamespace(cuda=self.cuda), SimpleNamespace(type=device))
        self.error: Exception | None = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        self.cuda.log.append("freeze")
        yield
        self.cuda.log.append("thaw")

    def steps(self, one_is_enough: bool) -> None:
        if self.error is not None:
            raise self.error
        self.cuda.log.append("one" if one_is_enough else "all")

    def __call__(self) -> None:
        self.graph.run(self.steps, self.frozen)


def test_steps_are_captured_once_after_one_that_changes_nothing() -> None:
    run = Run("cuda")
    run()
    first = ["freeze", "one", "thaw", "synchronize", ("capture", "thread_local"), "all", "captured"]
    assert run.cuda.log == [*first, "replay"]
    run()
    assert run.cuda.log == [*first, "replay", "replay"]


def test_a_capture_that_fails_is_tried_again() -> None:
    run = Run("cuda")
    run.error = RuntimeError("CUDA error: out of memory")
    with pytest.raises(RuntimeError):
        run()
    run.error = None
    run()
    assert run.cuda.log[-1] == "replay"


def test_without_a_gpu_the_steps_run_as_they_are() -> None:
    run = Run("cpu")
    run()
    run()
    assert run.cuda.log == ["all", "all"]
