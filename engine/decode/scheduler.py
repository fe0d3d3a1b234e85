"""Continuous admission: a slot that finishes takes the next cell at once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.base import NOT_FINITE, Admission, Chosen, Memory, Slots, Ticket
from cellscribe.engine.backends.text import Prompted
from cellscribe.engine.decode.labels import LabelTrie
from cellscribe.engine.errors import BackendError, UsageError

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Request:
    """One cell to describe: its index in the run, its key, its memory [S, d] and mask bool [S].

    `max_new_tokens` ends its text earlier than the run's does; None leaves the run's.
    """

    index: int
    key: int
    memory: Memory
    mask: npt.NDArray[np.bool_]
    max_new_tokens: int | None = None

    @property
    def num_genes(self) -> int:
        """Genes that evidence is kept for."""
        return len(self.mask)

    def admission(self, slot: int) -> Admission:
        """Return what fills a slot."""
        return Admission(slot, self.key, self.memory, self.mask)


@dataclass(frozen=True)
class TextRequest:
    """One prompt: its index in the run, its key, its tokens int64 [P], and the labels its text must be one of.

    With `all_labels` the text gets the log-probabilities of all of them. `memory` [S, d] is what the decoder attends
    to, where there is an encoder.
    """

    index: int
    key: int
    tokens: npt.NDArray[np.int64]
    labels: LabelTrie | None = None
    max_new_tokens: int | None = None
    all_labels: bool = False
    memory: Memory = None
    num_genes = 0

    def admission(self, slot: int) -> Prompted:
        """Return what fills a slot."""
        return Prompted(slot, self.key, self.tokens, self.labels, self.all_labels, self.memory)


AnyRequest = Request | TextRequest


@dataclass
class Text:
    """A text in progress or finished: tokens, log-probabilities, evidence summed over its tokens [S]."""

    request: AnyRequest
    started: float
    evidence: Floats
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    attention: list[Floats] = field(default_factory=list)  # [L, H, S] per token
    label_logprobs: Floats | None = None  # [labels]
    condition: Floats | None = None  # [d]
    finish_reason: str = ""
    latency_ms: float = float("nan")

    @property
    def is_finished(self) -> bool:
        """Whether it reached its end."""
        return bool(self.finish_reason)


@dataclass(frozen=True)
class TokenEvent:
    """What one step did to one text; `token_id` is None when the step ended the text without adding to it."""

    text: Text
    token_id: int | None
    logprob: float
    evidence: Floats  # [S], this token's


@dataclass
class Occupancy:
    """Steps that were run, and the slots that stood empty in them, summed, while requests were left."""

    steps: int = 0
    empty: int = 0


class Scheduler:
    """Drives slots until every request is a finished text.

    Where the slots allow it, the next steps are given to the device before the last ones are read, so that it never
    waits for this side; and while it has work and `is_ready` says that the next request would have to be waited for,
    texts go on without it.
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
    ) -> None:
        self._slots, self._num_slots = slots, num_slots
        self._eos_ids, self._max_new_tokens, self._keep_attention = eos_ids, max_new_tokens, keep_attention
        self._is_ready = is_ready
        self._texts: dict[int, Text] = {}
        self._given: dict[int, int] = {}  # tokens that the work given so far can choose, by slot
        self._under_way: deque[tuple[Ticket, dict[int, Text]]] = deque()  # with the text of every slot it is for
        self._error: BackendError | None = None
        self.occupancy = Occupancy()

    def run(self, requests: Iterator[AnyRequest]) -> Iterator[TokenEvent]:
        """Yield every chosen token in turn; a text's last event finds ``text.is_finished`` true.

        A BackendError of `requests` is raised when the texts that were begun are finished; a UsageError for a request
        of less than one token at once.
        """
        exhausted = False
        while True:
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

    def _admit(self, requests: Iterator[AnyRequest]) -> bool:
        """Give requests to the free slots; say whether there are no more."""
        admissions: list[Admission | Prompted] = []
        exhausted, has_work = False, bool(self._texts)
        for slot in range(self._num_slots):
            if slot in self._texts:
                continue
            if has_work and not self._is_ready():
                break
            try:
                request = next(requests, None)
            except BackendError as error:
                self._error, request = error, None
            if request is None:
                exhausted = True
                break
            if request.max_new_tokens is not None and request.max_new_tokens < 1:
                raise UsageError(f"a request asks for {request.max_new_tokens} new tokens; ask for at least 1.")
            self._texts[slot] = Text(request, time.perf_counter(), np.zeros(request.num_genes, np.float32))
            self._given[slot] = 1  # the prompt chooses the first
            admissions.append(request.admission(slot))
        if admissions:
            texts = {one.slot: self._texts[one.slot] for one in admissions}
            self._under_way.append((self._slots.admit(admissions), texts))
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
            text.finish_reason = reason or "length"
            text.latency_ms = (now - text.started) * 1e3
            del self._texts[slot]
        return TokenEvent(text, None if reason else token, float(chosen.logprobs[i]), evidence)
