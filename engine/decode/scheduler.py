"""Continuous admission: a slot that finishes takes the next cell at once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from cellscribe.engine.backends.base import NOT_FINITE, Admission, Chosen, Slots, Ticket
from cellscribe.engine.backends.text import Prompted
from cellscribe.engine.decode.requests import AnyRequest, Request, Text, TextRequest, TokenEvent
from cellscribe.engine.errors import BackendError, UsageError


@dataclass
class Occupancy:
    """Steps that were run, and the slots that stood empty in them, summed, while requests were left."""

    steps: int = 0
    empty: int = 0


class Scheduler:
    """Drives slots until every request is a finished text.

    Where the slots allow it, the next steps are given to the device before the last ones are read, so that it never
    waits for this side; and while it has work and `is_ready` says that the next request would have to be waited for,
    texts go on without it. `between` is called before every round of work, also while no text is active; it may
    :meth:`cancel`, as may whoever reads the events.
    """

    def __init__(
        self,
        slots: Slots,
        num_slots: int,
        *,
        eos_ids: frozenset[int],
        max_new_tokens: int,
        keep_attention: bool = False,
        is_ready: Callable[[], bool] = lambda: True,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self._slots, self._num_slots = slots, num_slots
        self._eos_ids, self._max_new_tokens, self._keep_attention = eos_ids, max_new_tokens, keep_attention
        self._is_ready, self._between = is_ready, between
        self._texts: dict[int, Text] = {}
        self._given: dict[int, int] = {}  # tokens that the work given so far can choose, by slot
        self._under_way: deque[tuple[Ticket, dict[int, Text]]] = deque()  # with the text of every slot it is for
        self._error: BackendError | None = None
        self.occupancy = Occupancy()

    @property
    def busy(self) -> int:
        """Slots whose texts are in progress now."""
        return len(self._texts)

    def cancel(self, index: int, reason: str = "cancelled") -> bool:
        """End the text of a request now; say whether it was in progress.

        No event tells of it. Its slot is free for the next admission, and what is under way for it is not looked at.
        """
        slot = next((slot for slot, text in self._texts.items() if text.request.index == index), None)
        if slot is None:
            return False
        self._end(slot, reason, time.perf_counter())
        return True

    def run(self, requests: Iterator[AnyRequest | None]) -> Iterator[TokenEvent]:
        """Yield every chosen token in turn; a text's last event finds ``text.is_finished`` true.

        A BackendError of `requests` is raised when the texts that were begun are finished; a UsageError for a request
        of less than one token at once. Where `requests` has none at present it may say None, so that those that were
        begun are not kept waiting for others.
        """
        exhausted = False
        while True:
            self._between()
            if not exhausted:
                exhausted = self._admit(requests)
                if self._slots.depth == 1:
                    yield from self._collect(0)
            active = self._active()
            if active:
                self._step(active)
                self.occupancy.steps += 1
                self.occupancy.empty += 0 if exhausted else self._num_slots - len(self._texts)
                yield from self._collect(self._slots.depth - 1)
            elif self._under_way:
                yield from self._collect(len(self._under_way) - 1)
            elif exhausted:
                if self._error is not None:
                    raise self._error
                return

    def _active(self) -> list[int]:
        """Return the slots whose texts may still get a token that no step was given for."""
        return [slot for slot in sorted(self._texts) if self._given[slot] < self._limit(self._texts[slot])]

    def _limit(self, text: Text) -> int:
        """Most tokens of a text."""
        asked = text.request.max_new_tokens
        return self._max_new_tokens if asked is None else min(asked, self._max_new_tokens)

    def _step(self, active: list[int]) -> None:
        ticket = self._slots.step(np.array(active, dtype=np.int64))
        self._under_way.append((ticket, {slot: self._texts[slot] for slot in active}))
        for slot in active:
            self._given[slot] += self._slots.steps_per_ticket

    def _admit(self, requests: Iterator[AnyRequest | None]) -> bool:
        """Give requests to the free slots; say whether there are no more."""
        admissions: list[Admission | Prompted] = []
        begun: dict[int, Text] = {}
        exhausted, has_work = False, bool(self._texts)
        for slot in range(self._num_slots):
            if slot in self._texts:
                continue
            if has_work and not self._is_ready():
                break
            try:
                request = next(requests)
            except StopIteration:
                exhausted = True
                break
            except BackendError as error:
                self._error, exhausted = error, True
                break
            if request is None:
                break
            if request.max_new_tokens is not None and request.max_new_tokens < 1:
                raise UsageError(f"a request asks for {request.max_new_tokens} new tokens; ask for at least 1.")
            begun[slot] = Text(request, time.perf_counter(), np.zeros(request.num_genes, np.float32))
            self._texts[slot] = begun[slot]
            self._given[slot] = 1  # the prompt chooses the first
            admissions.append(request.admission(slot))
        if admissions:
            self._under_way.append((self._slots.admit(admissions), begun))
        return exhausted

    def _collect(self, left: int) -> Iterator[TokenEvent]:
        """Read the oldest tickets until only `left` are under way."""
        while len(self._under_way) > left:
            ticket, texts = self._under_way.popleft()
            for chosen in ticket.wait():
                now = time.perf_counter()
                for i, slot in enumerate(chosen.slots.tolist()):
                    text = texts.get(slot)
                    if text is not None and not text.is_finished:  # slots know nothing of a request's own limit
                        yield self._advance(text, chosen, i, now)

    def _advance(self, text: Text, chosen: Chosen, i: int, now: float) -> TokenEvent:
        slot, token = int(chosen.slots[i]), int(chosen.token_ids[i])
        evidence = chosen.evidence[i, : len(text.evidence)]
        if chosen.conditions is not None and not np.isnan(chosen.conditions[i]).all():
            text.condition = chosen.conditions[i]
        reason = "failed" if token == NOT_FINITE else "stop" if token in self._eos_ids else ""
        if not reason:
            text.token_ids.append(token)
            text.logprobs.append(float(chosen.logprobs[i]))
            text.evidence += evidence
            if self._keep_attention and chosen.attention is not None:
                text.attention.append(chosen.attention[i, ..., : len(text.evidence)])
            if chosen.label_logprobs is not None and np.isfinite(chosen.label_logprobs[i]).all():
                text.label_logprobs = chosen.label_logprobs[i]
        full = len(text.token_ids) == self._limit(text)
        if reason or full:
            self._end(slot, reason or "length", now)
        return TokenEvent(text, None if reason else token, float(chosen.logprobs[i]), evidence)

    def _end(self, slot: int, reason: str, now: float) -> None:
        text = self._texts.pop(slot)
        text.finish_reason, text.latency_ms = reason, (now - text.started) * 1e3


__all__ = ["AnyRequest", "Occupancy", "Request", "Scheduler", "Text", "TextRequest", "TokenEvent"]
