"""Texts of one sampling, written while requests come and go."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np

from cellscribe.engine.backends.base import Backend, SlotPlan
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.decode.scheduler import Request, Scheduler
from cellscribe.engine.describe import ENCODE_CELLS, DescribeOptions, Subject, Writer, failed, gene_axes
from cellscribe.engine.keyed import cell_key
from cellscribe.engine.triton.cells import joined, most_tokens
from cellscribe.engine.triton.waiting import Receiver, Waiting, WaitingRoom


class Course(Writer):
    """Slots of one sampling: a request that comes meanwhile takes the first slot that is free."""

    def __init__(self, backend: Backend, bundle: Bundle, options: DescribeOptions, room: WaitingRoom) -> None:
        super().__init__(backend, bundle, options)
        self._room, self._sampling = room, options.sampling
        self._receivers: dict[int, Receiver] = {}  # by the index of a request, of all that were taken
        self._encoded: deque[Request] = deque()
        self._taken = 0

    def run(self) -> None:
        """Write until requests of another sampling wait, or none is to come; raises BackendError on the way."""
        options, prompt = self._options, self._bundle.manifest.prompt
        eos_ids = frozenset(prompt.eos_token_ids if prompt else ())
        num_genes = most_tokens(self._bundle)
        plan = SlotPlan(options.num_slots, num_genes, options.max_new_tokens, options.sampling, eos_ids=eos_ids)
        slots, num_slots = self._open(plan)
        scheduler = Scheduler(
            slots,
            num_slots,
            eos_ids=eos_ids,
            max_new_tokens=options.max_new_tokens,
            is_ready=lambda: bool(self._encoded) or self._room.is_ready(),
        )
        for event in scheduler.run(cast("Iterator[Request]", self._requests())):
            index = event.text.request.index
            to = self._receivers[index]
            if event.token_id is not None and to.wants_pieces:
                to.piece(self.piece(event))
            if event.text.is_finished:
                self._finish(event.text)
                del self._receivers[index]
                to.done(self.take(index))

    @property
    def num_taken(self) -> int:
        """Requests that were taken so far."""
        return self._taken

    def lose(self, why: str) -> None:
        """Tell everybody whose text is not finished why it never will be."""
        while self._receivers:
            self._receivers.popitem()[1].lost(why)

    def _requests(self) -> Iterator[Request | None]:
        """Yield requests as they come; None where there is none now but texts are in progress."""
        while True:
            if taken := self._room.take(self._sampling, ENCODE_CELLS):
                self._encode(taken)
            elif self._room.is_over(self._sampling):
                return
            elif self._receivers:
                yield None
            else:
                self._room.sampling()  # waits
            while self._encoded:
                yield self._encoded.popleft()

    def _encode(self, taken: Sequence[Waiting]) -> None:
        first, self._taken = self._taken, self._taken + len(taken)
        self._receivers |= {first + i: to for i, (_, to) in enumerate(taken)}
        start = 0
        for batch in joined([asked.batch for asked, _ in taken]):
            lengths = [asked.max_new_tokens for asked, _ in taken[start : start + batch.n_cells]]
            self._admit(batch, first + start, lengths)
            start += batch.n_cells

    def _admit(self, batch: TokenBatch, first: int, lengths: Sequence[int]) -> None:
        encoded = self._backend.encode(batch)
        for i, axis in enumerate(gene_axes(batch, self._bundle.vocabulary.tokens)):
            index, name = first + i, batch.cell_ids[i]
            if not np.isfinite(encoded.cell[i]).all():
                self._receivers.pop(index).done(failed(name, "its embedding is not finite"))
                continue
            self._subjects[index] = Subject(index, name, axis)
            self._encoded.append(Request(index, cell_key(name), encoded.memory[i], batch.mask[i], lengths[i]))
