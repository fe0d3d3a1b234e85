"""Results on their way back from the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from cellscribe.engine.backends.base import Chosen, Ints
from cellscribe.engine.backends.cuda.state import Report

SILENT = -2  # a slot whose text has ended; include/cellscribe/sampling.h


class DeviceTicket:
    """A report that is being copied to the host.

    `event` is None where the work is done when it is given; `guard` makes sentences of what went wrong on the device,
    which mostly shows here.
    """

    def __init__(
        self,
        host: Report,
        slots: Ints,
        event: Any,
        release: Callable[[Report], None],
        guard: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._host, self._slots, self._event, self._release, self._guard = host, slots, event, release, guard

    def wait(self) -> Sequence[Chosen]:
        """Return what was chosen, step by step."""
        if self._event is not None:
            with self._guard():
                self._event.synchronize()
        count = len(self._slots)
        chosen = self._host.chosen.numpy()[:, :count]
        steps = [self._step(step, np.flatnonzero(row != SILENT)) for step, row in enumerate(chosen)]
        self._release(self._host)
        return [step for step in steps if len(step.slots)]

    def _step(self, step: int, rows: Ints) -> Chosen:
        """Copy what n slots chose out of the host's report, which serves again."""
        host = self._host
        return Chosen(
            slots=self._slots[rows],
            token_ids=host.chosen.numpy()[step, rows].astype(np.int64),
            logprobs=host.logprobs.numpy()[step, rows],
            evidence=host.evidence.numpy()[step, rows],
            attention=None if host.attention is None else host.attention.numpy()[step, rows],
        )


class Joined:
    """Several tickets as one."""

    def __init__(self, tickets: Sequence[DeviceTicket]) -> None:
        self._tickets = tickets

    def wait(self) -> Sequence[Chosen]:
        """Return what was chosen."""
        return [chosen for ticket in self._tickets for chosen in ticket.wait()]
