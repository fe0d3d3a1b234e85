"""A bundle as a service: who may ask, for what, and until when."""

from __future__ import annotations

import asyncio
import hmac
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.choose import Choice, precision_of
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.service.cell_files import CellFile, CellFiles
from cellscribe.engine.service.limits import ServiceLimits
from cellscribe.engine.service.mapping import Maps
from cellscribe.engine.service.metrics import Metrics
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.queue import Lines
from cellscribe.engine.service.threads import Threads
from cellscribe.engine.service.visits import Visits, here
from cellscribe.engine.versions import versions

T = TypeVar("T")
_MAP_PORTION = 64  # cells that are embedded at a time for a map


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


class AnyDesk(Protocol):
    """The thread that drives the model."""

    num_slots: int
    is_ready: bool
    has_failed: bool

    @property
    def busy(self) -> int:
        """Slots in use."""

    def start(self) -> None:
        """Begin to work."""

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end, and say whether it has come."""


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
    """One bundle for many clients at once; a base of what families do, which make `queue` and `desk`.

    Parameters
    ----------
    model
        The bundle on its device.
    demo
        A file of cells that clients can pick from.
    settings
        How it is run.
    """

    queue: Lines[Any]
    desk: AnyDesk
    mapped_cells: ClassVar[int]  # of a file without a map of its own that are embedded for one

    def __init__(self, model: OpenModel, demo: Path, settings: ServiceSettings) -> None:
        self.settings, self.limits, self.metrics = settings, settings.limits, Metrics()
        self.bundle, self.device, self.started = model.bundle, model.device, int(time.time())
        self.precision = precision_of(model.bundle, model.backend_choice.backend)
        self.files = CellFiles(demo, self.limits, self.metrics.uploads.set)
        self.is_closing, self.threads, self.visits = False, Threads(), Visits()
        portion = min(settings.num_slots, max(1, self.limits.queue_cells // 4), _MAP_PORTION)
        self._maps = Maps(self.threads, self.vectors, self.mapped_cells, portion)
        self.metrics.queue.set_function(lambda: len(self.queue))
        self.metrics.slots_in_use.set_function(lambda: self.desk.busy)
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

    @abstractmethod
    def genes(self, file: CellFile) -> dict[str, object]:
        """Return how many genes of a file are known, how many not, and a sentence about it."""

    @abstractmethod
    async def vectors(self, file: CellFile, rows: npt.NDArray[np.int64], client: str) -> npt.NDArray[np.float32]:
        """Embed cells of a file for a client, [N, d]; NaN where a cell has no vector.

        Raises
        ------
        RequestError
            429 where there is no room for so many to wait.
        BackendError
            Where the model fails.
        """

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered."""
        return self.desk.is_ready and not self.queue.is_closed

    @property
    def has_failed(self) -> bool:
        """Whether requests will not be answered any more, and the process had better be started anew."""
        return self.desk.has_failed

    @property
    def num_slots(self) -> int:
        """Texts (or cells) in work at a time."""
        return self.desk.num_slots

    def start(self) -> None:
        """Begin to answer."""
        self.desk.start()

    def drain(self, timeout_s: float) -> bool:
        """Take nothing new and finish what was begun; say whether that came to its end in time."""
        self.shut()
        return self.desk.join(timeout_s)

    def shut(self) -> None:
        """Take nothing new from now on; what waits is still answered."""
        self.is_closing = True
        self.queue.close()

    def close(self) -> None:
        """Let go of files and threads."""
        self.shut()
        self.threads.close()
        self.files.close()

    async def listing(self, file: CellFile, column: str | None, is_local: bool = False) -> dict[str, Any]:
        """Return what a client needs to pick cells of a file; its path, too, where the client is on this machine."""
        visit, files = here(), self.threads.use_file
        genes = await files(lambda: self.genes(file))
        places = await visit.bounded(asyncio.ensure_future(self._maps.of(file, visit.client)))
        return await files(lambda: file.listing(column, places, genes, is_local))

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

    def check_count(self, count: int) -> None:
        """Raise RequestError 413 for a request of too many cells, 429 for one that finds no room at this moment."""
        if count > self.limits.cells:
            raise RequestError(
                413, f"{count} cells are more than {self.limits.cells}; send them in several requests.", "cells"
            )
        self.queue.check(here().client, count)

    def deadline(self, asked_s: float | None) -> float:
        """Return when a request must be answered, from its arrival on, as a time of the monotonic clock.

        What is done for it in threads ends then, too, from the moment on that this was asked.
        """
        most, visit = self.limits.deadline_s, here()
        visit.deadline = visit.arrived + (most if asked_s is None else min(asked_s, most))
        return visit.deadline

    def seed(self, asked: int | None) -> int:
        """Return the key of a request's random numbers."""
        return self.settings.seed if asked is None else asked

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Make cells ready beside the event loop.

        Raises
        ------
        RequestError
            504 where the deadline passes meanwhile, 499 where the client leaves.
        """
        return await self.threads.read(call)
