"""The steps of a run captured as a CUDA graph, replayed as often as wanted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

Steps = Callable[[bool], None]  # whether a single step is enough


class StepGraph:
    """The graph of a few steps of all slots, captured when it is first needed.

    It is given what it runs at every call, so that it does not keep the slots alive that keep it.
    """

    def __init__(self, torch: Any, device: Any) -> None:
        self._torch, self._device = torch, device
        self._graph: Any = None

    def run(self, steps: Steps, frozen: Callable[[], AbstractContextManager[None]]) -> None:
        """Run the steps.

        Before the capture one step is run while `frozen` holds every text where it is, so that libraries load and
        choose what they will use.
        """
        if self._device.type != "cuda":
            steps(False)
            return
        if self._graph is None:
            self._graph = self._capture(steps, frozen)
        self._graph.replay()

    def _capture(self, steps: Steps, frozen: Callable[[], AbstractContextManager[None]]) -> Any:
        cuda = self._torch.cuda
        with frozen():
            steps(True)
        cuda.synchronize(self._device)
        graph = cuda.CUDAGraph()
        # Another thread may be encoding cells, and allocating for them, meanwhile.
        with cuda.graph(graph, capture_error_mode="thread_local"):
            steps(False)
        return graph
