"""Continuous admission: a slot that finishes takes the next cell at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.base import Admission, Array, Chosen, Slots

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Request:
    """One cell to describe: its index in the run, its key, its memory [S, d] and mask bool [S]."""

    index: int
    key: int
    memory: Array
    mask: npt.NDArray[np.bool_]


@dataclass
class Text:
    """A text in progress or finished: tokens, log-probabilities, evidence summed over its tokens [S]."""

    request: Request
    started: float
    evidence: Floats
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    attention: list[Floats] = field(default_factory=list)  # [L, H, S] per token
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


class Scheduler:
    """Drives slots until every request is a finished text."""

    def __init__(
        self,
        slots: Slots,
        num_slots: int,
        *,
        eos_ids: frozenset[int],
        max_new_tokens: int,
        keep_attention: bool = False,
    ) -> None:
        self._slots, self._num_slots = slots, num_slots
        self._eos_ids, self._max_new_tokens, self._keep_attention = eos_ids, max_new_tokens, keep_attention
        self._texts: dict[int, Text] = {}

    def run(self, requests: Iterator[Request]) -> Iterator[TokenEvent]:
        """Yield every chosen token in turn; a text's last event finds ``text.is_finished`` true."""
        exhausted = False
        while True:
            if not exhausted:
                exhausted, admitted = self._admit(requests)
                yield from self._record(admitted)
            if not self._texts:
                if exhausted:
                    return
                continue
            yield from self._record(self._slots.step(np.array(sorted(self._texts), dtype=np.int64)))

    def _admit(self, requests: Iterator[Request]) -> tuple[bool, Chosen | None]:
        """Take requests for the free slots; say whether there are no more."""
        admissions: list[Admission] = []
        exhausted = False
        for slot in range(self._num_slots):
            if slot in self._texts:
                continue
            request = next(requests, None)
            if request is None:
                exhausted = True
                break
            self._texts[slot] = Text(request, time.perf_counter(), np.zeros(len(request.mask), np.float32))
            admissions.append(Admission(slot, request.key, request.memory, request.mask))
        return exhausted, self._slots.admit(admissions) if admissions else None

    def _record(self, chosen: Chosen | None) -> Iterator[TokenEvent]:
        if chosen is None:
            return
        now = time.perf_counter()
        for slot, token, logprob in zip(
            *(a.tolist() for a in (chosen.slots, chosen.token_ids, chosen.logprobs)), strict=True
        ):
            yield self._advance(slot, token, logprob, now)

    def _advance(self, slot: int, token: int, logprob: float, now: float) -> TokenEvent:
        text = self._texts[slot]
        evidence = self._slots.evidence(slot)[: len(text.evidence)]
        is_end = token in self._eos_ids
        if not is_end:
            text.token_ids.append(token)
            text.logprobs.append(logprob)
            text.evidence += evidence
            if self._keep_attention:
                text.attention.append(self._slots.attention(slot)[..., : len(text.evidence)].copy())
        if is_end or len(text.token_ids) == self._max_new_tokens:
            text.finish_reason = "stop" if is_end else "length"
            text.latency_ms = (now - text.started) * 1e3
            del self._texts[slot]
        return TokenEvent(text, None if is_end else token, logprob, evidence)
