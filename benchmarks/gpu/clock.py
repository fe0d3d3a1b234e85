"""Times of work on a device: CUDA events around replayed graphs, or the host's clock where the kernels are emulated."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Call = Callable[[], Any]
_ENOUGH_SECONDS = 0.2  # of one measurement


@dataclass(frozen=True)
class Clock:
    """Measures calls on one device; the median of several rounds."""

    torch: Any
    is_cuda: bool

    def synchronize(self) -> None:
        """Wait until the device has done all it was given."""
        if self.is_cuda:
            self.torch.cuda.synchronize()

    def wall(self, call: Call) -> float:
        """Seconds from giving the work to its end."""
        self.synchronize()
        started = time.perf_counter()
        call()
        self.synchronize()
        return time.perf_counter() - started

    def each(self, calls: Sequence[Call], repeats: int) -> float:
        """Seconds of one call, in the mean over `calls` one after the other; the median of several rounds.

        On a GPU they are captured as one graph, so that what the host needs for a launch does not count.
        """
        if not self.is_cuda:
            rounds = [self.wall(lambda: [call() for call in calls]) for _ in range(max(repeats, 1))]
            return statistics.median(rounds) / len(calls)
        graph = self._captured(calls)
        first = self._events(graph.replay)
        rounds = [self._events(graph.replay) for _ in range(_count(first, repeats))]
        return statistics.median(rounds) / len(calls)

    def eager(self, call: Call, repeats: int) -> float:
        """Seconds of one call that cannot be captured, by events; the median."""
        if not self.is_cuda:
            return self.each([call], repeats)
        call()
        return statistics.median([self._events(call) for _ in range(repeats)])

    def _captured(self, calls: Sequence[Call]) -> Any:
        cuda = self.torch.cuda
        stream = cuda.Stream()
        stream.wait_stream(cuda.current_stream())
        with cuda.stream(stream):
            for call in calls[:3]:  # libraries load and choose what they will use
                call()
        cuda.current_stream().wait_stream(stream)
        cuda.synchronize()
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            for call in calls:
                call()
        graph.replay()
        cuda.synchronize()
        return graph

    def _events(self, call: Call) -> float:
        cuda = self.torch.cuda
        begin, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3


def _count(seconds: float, most: int) -> int:
    """How many rounds fit into the time of a measurement."""
    return max(3, min(most, int(_ENOUGH_SECONDS / max(seconds, 1e-6))))
