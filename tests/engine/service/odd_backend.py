"""A backend that can be slowed down, stopped and broken."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from cellscribe.engine.backends.base import Encoded, SlotPlan
from cellscribe.engine.errors import BackendError
from cellscribe.engine.model import Model


class OddBackend:
    """The backend of a model, which waits `pause` seconds a step and fails where it is told to.

    Attributes
    ----------
    failing
        What raises: "encode", "admit", "step" or "open".
    log
        What was done: ("encode", cells), ("admit", slots), ("step", slots).
    gate
        Steps wait while it is not set.
    """

    def __init__(self, model: Model, pause: float = 0.0, cells_ahead: int = 0) -> None:
        self._inner, self.pause, self.cells_ahead = model.backend, pause, cells_ahead
        self.failing: set[str] = set()
        self.error: Exception = BackendError("the device is gone.")
        self.log: list[tuple[str, Any]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.opened = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def check(self, what: str) -> None:
        if what in self.failing:
            raise self.error

    def encode(self, batch: Any) -> Encoded:
        self.log.append(("encode", list(batch.cell_ids)))
        self.check("encode")
        return self._inner.encode(batch)

    def open_slots(self, plan: SlotPlan) -> Any:
        self.check("open")
        self.opened += 1
        return OddSlots(self, self._inner.open_slots(plan))

    def count(self, what: str) -> int:
        return sum(kind == what for kind, _ in self.log)


class OddSlots:
    """Its slots."""

    def __init__(self, backend: OddBackend, inner: Any) -> None:
        self._backend, self._inner = backend, inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def admit(self, admissions: Any) -> Any:
        self._backend.log.append(("admit", [one.slot for one in admissions]))
        self._backend.check("admit")
        return self._inner.admit(admissions)

    def step(self, active: np.ndarray) -> Any:
        time.sleep(self._backend.pause)
        self._backend.gate.wait(20)
        self._backend.log.append(("step", active.tolist()))
        self._backend.check("step")
        return self._inner.step(active)


def odd_model(model: Model, backend: OddBackend) -> Any:
    """The model with another backend."""
    return SimpleNamespace(
        bundle=model.bundle, device=model.device, backend=backend, backend_choice=model.backend_choice
    )
