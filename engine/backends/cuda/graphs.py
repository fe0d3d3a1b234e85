"""Steps captured as CUDA graphs: one per number of rows, replayed as often as wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_BUCKETS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 320, 384, 448, 512)


def bucket(rows: int, num_slots: int) -> int:
    """Return how many rows to run for `rows`: few sizes, so that few graphs are captured."""
    return min(next((size for size in _BUCKETS if size >= rows), rows), num_slots)


class StepGraphs:
    """Captures `steps(rows)` for a number of rows when it is first needed.

    The function must leave the slots as they are while `frozen` says so: it is run once before it is captured, so that
    libraries load and choose what they will use.
    """

    def __init__(self, torch: Any, device: Any, steps: Callable[[int], None], frozen: Callable[[], Any]) -> None:
        self._torch, self._device, self._steps, self._frozen = torch, device, steps, frozen
        self._graphs: dict[int, Any] = {}
        self._pool: Any = None

    def run(self, rows: int) -> None:
        """Run the steps for the first rows."""
        if self._device.type != "cuda":
            self._steps(rows)
            return
        if rows not in self._graphs:
            self._graphs[rows] = self._capture(rows)
        self._graphs[rows].replay()

    def _capture(self, rows: int) -> Any:
        cuda = self._torch.cuda
        with self._frozen():
            self._steps(rows)
        cuda.synchronize(self._device)
        graph = cuda.CUDAGraph()
        # Another thread may be encoding cells, and allocating for them, meanwhile.
        with cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            self._steps(rows)
        self._pool = self._pool or graph.pool()
        return graph
