"""Real texts, timed: a burst of steps at a time, or whole from admission to the last token."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from cellscribe.engine.backends.base import NOT_FINITE, Admission, Slots
from cellscribe.engine.bench.clock import Sample
from cellscribe.engine.bench.contender import Contender
from cellscribe.engine.decode.scheduler import Request, Scheduler
from cellscribe.engine.errors import BackendError


class Steps:
    """Steps of full slots, timed one by one.

    Every call times the next `burst` steps of texts that go on from call to call; texts that are full are begun anew,
    which is not timed. So all contenders of a round have the same tokens in use.

    Parameters
    ----------
    contender, num_slots, memory_len
        Who writes how many texts about memories of which length.
    new_tokens
        Tokens after which the texts are begun anew.
    burst
        Steps of one call.
    max_new_tokens
        Room in the caches, at least `new_tokens`; that much without it.
    """

    def __init__(
        self,
        contender: Contender,
        num_slots: int,
        memory_len: int,
        new_tokens: int,
        burst: int = 8,
        max_new_tokens: int | None = None,
    ) -> None:
        self._num_slots, self._new_tokens, self._burst = num_slots, new_tokens, burst
        self._contender, self._memory_len = contender, memory_len
        self._slots = contender.backend.open_slots(contender.plan(num_slots, memory_len, max_new_tokens or new_tokens))
        self._admissions = [
            Admission(one.index, one.key, one.memory, one.mask) for one in contender.requests(num_slots, memory_len)
        ]
        self._active = np.arange(num_slots)
        self._written = new_tokens  # so that the first call begins

    def __call__(self) -> Sample:
        """Time the next steps."""
        per_ticket = self._slots.steps_per_ticket
        seconds: list[float] = []
        in_use: list[float] = []  # tokens, by step
        for _ in range(self._burst):
            if self._written + per_ticket > self._new_tokens:
                self._begin()
            started = time.perf_counter()
            chosen = self._slots.step(self._active).wait()
            seconds.append((time.perf_counter() - started) / per_ticket)
            in_use.append(self._contender.prompt_len + self._written + (per_ticket - 1) / 2)
            self._written += per_ticket
            if any((one.token_ids == NOT_FINITE).any() for one in chosen):
                raise BackendError("a step gave numbers that are not finite; check the bundle with cellscribe verify.")
        mean = sum(in_use) / len(in_use)  # the work of a step grows evenly with its tokens
        return Sample(tuple(seconds), work=self._contender.cost.step(self._num_slots, mean, self._memory_len))

    def _begin(self) -> None:
        self._slots.admit(self._admissions).wait()
        self._written = 1


def write(slots: Slots, num_slots: int, requests: Iterator[Request], max_new_tokens: int) -> tuple[float, ...]:
    """Write whole texts, and return the milliseconds from each one's admission to its last token.

    Raises
    ------
    BackendError
        When a text fails.
    """
    scheduler = Scheduler(slots, num_slots, eos_ids=frozenset(), max_new_tokens=max_new_tokens)
    latency_ms: list[float] = []
    for event in scheduler.run(requests):
        if event.text.finish_reason == "failed":
            raise BackendError("a text's logits are not finite; check the bundle with cellscribe verify.")
        if event.text.is_finished:
            latency_ms.append(event.text.latency_ms)
    return tuple(latency_ms)
