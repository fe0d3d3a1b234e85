"""How far a worker is, and where its time goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
STAGES = ("read", "tokenise", "encode", "decode", "model", "write")


@dataclass
class Meter:
    """Counts of one worker since it began, and its seconds by stage.

    `read` is waiting for cells, `tokenise` making tokens of them, `encode` and `decode` the model, `write` the shards;
    `model` is all but the last where a task does not tell them apart. A stage that was not measured has no seconds; one
    that runs in a thread of its own overlaps with the others. Of `places` [cells x longest of its batch],
    `real_places` hold tokens. In `steps` of the decoder there were `slot_steps` places for texts, `empty_steps` of
    them without one although cells were left.
    """

    cells: int = 0
    failed: int = 0
    shared: int = 0
    tokens: int = 0
    real_places: int = 0
    places: int = 0
    steps: int = 0
    slot_steps: int = 0
    empty_steps: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)
    _here: threading.local = field(default_factory=threading.local)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of a block as a stage's, less that of stages within it."""
        outer: float = getattr(self._here, "inner", 0.0)
        self._here.inner, began = 0.0, time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - began
            self.seconds[name] = self.seconds.get(name, 0.0) + max(0.0, took - self._here.inner)
            self._here.inner = outer + took

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Count the time that items take to come as a stage's, less that of stages within it."""
        iterator = iter(items)
        try:
            while True:
                with self.stage(name):
                    item = next(iterator)
                yield item
        except StopIteration:
            return

    def snapshot(self) -> dict[str, Any]:
        """Return all figures, ready for JSON."""
        counts = ("cells", "failed", "shared", "tokens", "real_places", "places", "steps", "slot_steps", "empty_steps")
        return {
            **{name: int(getattr(self, name)) for name in counts},
            "elapsed": round(time.perf_counter() - self.started, 3),
            "seconds": {name: round(one, 3) for name, one in dict(self.seconds).items()},
        }


def together(snapshots: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up what workers counted; their times are added too, so that shares of them are shares of worker seconds."""
    total: dict[str, Any] = {}
    for one in snapshots:
        for name, value in one.items():
            if isinstance(value, Mapping):
                inner = total.setdefault(name, {})
                for key, number in value.items():
                    inner[key] = inner.get(key, 0.0) + number
            else:
                total[name] = total.get(name, 0) + value
    return total
