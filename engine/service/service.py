"""A bundle as a service: who may ask, for what, and until when."""

from __future__ import annotations

import asyncio
import hmac
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cellscribe.engine.backends.choose import Choice, precision_of
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.service.cell_files import CellFile, CellFiles
from cellscribe.engine.service.limits import ServiceLimits
from cellscribe.engine.service.metrics import Metrics
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.versions import versions

T = TypeVar("T")
_THREADS = 4  # that read files and make cells ready


class OpenModel(Protocol):
    """A bundle on a device."""

    @property
    def bundle(self) -> Bundle:
        """The bundle."""

    @property
    def device(self) -> str:
        """Device and provider in words."""

    @property
    def backend_choice(self) -> Choice:
        """What runs it."""


@dataclass(frozen=True)
class ServiceSettings:
    """How a service is run.

    Parameters
    ----------
    num_slots
        Texts in progress at a time.
    seed
        Key of all random numbers where a request gives none: sampling, and draws between equal values of a cell.
    hvg
        Genes to feed a bundle that wants highly variable ones.
    keys
        Any of them lets a client in; none lets everybody in.
    """

    num_slots: int = 32
    seed: int = 0
    hvg: Sequence[str] | None = None
    keys: tuple[str, ...] = ()
    limits: ServiceLimits = field(default_factory=ServiceLimits)


class Service(ABC):
    """One bundle for many clients at once; a base of what families do.

    Parameters
    ----------
    model
        The bundle on its device.
    demo
        A file of cells that clients can pick from.
    settings
        How it is run.
    """

    def __init__(self, model: OpenModel, demo: Path, settings: ServiceSettings) -> None:
        self.settings, self.limits, self.metrics = settings, settings.limits, Metrics()
        self.bundle, self.device, self.started = model.bundle, model.device, int(time.time())
        self.precision = precision_of(model.bundle, model.backend_choice.backend)
        self.files = CellFiles(demo, self.limits, self.metrics.uploads.set)
        self.is_closing = False
        self._pool = ThreadPoolExecutor(_THREADS, "cellscribe reading")
        self.metrics.told(
            version=versions()["cellscribe"],
            bundle=self.bundle.name,
            family=self.bundle.manifest.family,
            device=self.device,
            precision=self.precision,
        )

    @property
    @abstractmethod
    def tasks(self) -> tuple[str, ...]:
        """What it can be asked for."""

    @property
    @abstractmethod
    def is_ready(self) -> bool:
        """Whether requests are answered."""

    @property
    def has_failed(self) -> bool:
        """Whether requests will not be answered any more, and the process had better be started anew."""
        return False

    @property
    @abstractmethod
    def num_slots(self) -> int:
        """Texts in progress at a time."""

    @abstractmethod
    def start(self) -> None:
        """Begin to answer."""

    @abstractmethod
    def drain(self, timeout_s: float) -> bool:
        """Take nothing new and finish what was begun; say whether that came to its end in time."""

    @abstractmethod
    def listing(self, file: CellFile, column: str | None, is_local: bool = False) -> dict[str, Any]:
        """Return what a client needs to pick cells of a file; its path, too, where the client is on this machine."""

    def shut(self) -> None:
        """Take nothing new from now on."""
        self.is_closing = True

    def close(self) -> None:
        """Let go of files and threads."""
        self.shut()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.files.close()

    def lets_in(self, key: str | None) -> bool:
        """Whether a client with this key may ask."""
        keys = self.settings.keys
        if not keys:
            return True
        given = (key or "").encode()
        matches = [hmac.compare_digest(given, one.encode()) for one in keys]  # all of them, in the same time
        return any(matches)

    def check_task(self, task: str) -> None:
        """Raise RequestError 404 for what this bundle cannot do."""
        if task not in self.tasks:
            has = " and ".join(self.tasks)
            raise RequestError(404, f"the bundle {self.bundle.name} does not {task}; it can {has}.")

    def check_model(self, name: str | None) -> None:
        """Raise RequestError 404 for another model than the one that is loaded."""
        if name is not None and name != self.bundle.name:
            raise RequestError(404, f"the model {name!r} is not here; {self.bundle.name!r} is.", "model")

    def deadline(self, asked_s: float | None) -> float:
        """Return when a request must be answered, as a time of the monotonic clock."""
        most = self.limits.deadline_s
        return time.monotonic() + (most if asked_s is None else min(asked_s, most))

    def seed(self, asked: int | None) -> int:
        """Return the key of a request's random numbers."""
        return self.settings.seed if asked is None else asked

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Run what takes long beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)
