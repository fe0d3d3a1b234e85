"""Steps captured as CUDA graphs, replayed as often as wanted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

Steps = Callable[[int, bool], None]  # rows, and whether a single step is enough


class StepGraphs:
    """A graph of a few steps for every number of rows that is asked for.

    It is given what it runs at every call, so that it does not keep the slots alive that keep it.
    """

    def __init__(self, torch: Any, device: Any) -> None:
        self._torch, self._device = torch, device
        self._graphs: dict[int, Any] = {}
        self._pool: Any = None

    def run(self, rows: int, steps: Steps, frozen: Callable[[], AbstractContextManager[None]]) -> None:
        """Run the steps for the first rows.

        Before a capture one step is run while `frozen` holds every text where it is, so that libraries load and choose
        what they will use.
        """
        if self._device.type != "cuda":
            steps(rows, False)
            return
        if rows not in self._graphs:
            self._graphs[rows] = self._capture(rows, steps, frozen)
        self._graphs[rows].replay()

    def _capture(self, rows: int, steps: Steps, frozen: Callable[[], AbstractContextManager[None]]) -> Any:
        cuda = self._torch.cuda
        with frozen():
            steps(rows, True)
        cuda.synchronize(self._device)
        graph = cuda.CUDAGraph()
        # Another thread may be encoding cells, and allocating for them, meanwhile.
        with cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            steps(rows, False)
        self._pool = self._pool or graph.pool()
        return graph
