"""How far a build is, and a way to stop it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import Any

Report = Callable[[str, float], None]  # what is built, and how much of it is done (0..1)


class Watcher:
    """Turns a builder's nested phases into one share, and passes on the wish to stop.

    TensorRT calls it from its own threads.
    """

    def __init__(self, report: Callable[[float], None] | None = None) -> None:
        self._report, self._lock = report, threading.Lock()
        self._phases: dict[str, tuple[str | None, int, int]] = {}  # name -> parent, steps, steps done
        self._share = 0.0
        self.cancelled = False

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins, within another one or alone."""
        with self._lock:
            self._phases[name] = (parent, max(steps, 1), 0)

    def step(self, name: str, step: int) -> bool:
        """A step is done; False asks the builder to stop."""
        with self._lock:
            if name in self._phases:
                parent, steps, _ = self._phases[name]
                self._phases[name] = (parent, steps, min(step + 1, steps))
                self._tell(self._share_of(name))
        return not self.cancelled

    def finish(self, name: str) -> None:
        """A phase ends."""
        with self._lock:
            self._phases.pop(name, None)

    def _share_of(self, name: str) -> float:
        share, above = 0.0, name
        for _ in range(len(self._phases)):
            parent, steps, done = self._phases[above]
            share = min((done + share) / steps, 1.0)
            if parent is None or parent not in self._phases:
                return share if parent is None else 0.0
            above = parent
        return 0.0

    def _tell(self, share: float) -> None:
        if share > self._share:
            self._share = share
            if self._report is not None:
                self._report(share)


def monitor_of(trt: Any, watcher: Watcher) -> Any:
    """Return a product's progress monitor that tells `watcher`."""
    return _kind(trt)(watcher)


@cache
def _kind(trt: Any) -> Any:
    class _Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self, watcher: Watcher) -> None:
            trt.IProgressMonitor.__init__(self)
            self._watcher = watcher

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._watcher.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return self._watcher.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            self._watcher.finish(phase_name)

    return _Monitor


def interruptible(work: Callable[[], None], watcher: Watcher) -> None:
    """Run `work` beside this thread, so that Ctrl-C is heard while TensorRT builds; it then stops at its next step.

    The exception of the interrupt is raised when `work` has ended, as TensorRT does not survive its process.
    """
    failures: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name="cellscribe-build").start()
    interrupt: BaseException | None = None
    while not done.is_set():
        try:
            done.wait(0.1)
        except KeyboardInterrupt as error:
            watcher.cancelled, interrupt = True, error
    if interrupt is not None:
        raise interrupt
    if failures:
        raise failures[0]
