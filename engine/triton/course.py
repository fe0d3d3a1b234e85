"""Texts that are written while requests come and go."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

from cellscribe.engine.backends.base import Backend, SlotPlan
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.decode.described import failed, open_slots
from cellscribe.engine.decode.scheduler import Request, Scheduler
from cellscribe.engine.describe import ENCODE_CELLS, DescribeOptions, Subject, Writer, gene_axes
from cellscribe.engine.keyed import cell_key
from cellscribe.engine.triton.cells import Asked, joined, most_tokens
from cellscribe.engine.triton.waiting import Receiver, Waiting, WaitingRoom

LEFT = "the request was cancelled."


class Course(Writer):
    """Slots that all requests share: one that comes takes the first slot that is free, one whose client left frees its.

    Each has a sampling of its own; that of the options counts for nothing.
    """

    def __init__(self, backend: Backend, bundle: Bundle, options: DescribeOptions, room: WaitingRoom) -> None:
        super().__init__(backend, bundle, options)
        self._room = room
        self._receivers: dict[int, Receiver] = {}  # by the index of a request, of all that were taken
        self._encoded: deque[Request] = deque()
        self._taken = 0

    def run(self) -> None:
        """Write until the room is closed and all is written; raises BackendError on the way."""
        options, prompt = self._options, self._bundle.manifest.prompt
        eos_ids = frozenset(prompt.eos_token_ids if prompt else ())
        num_genes, longest = most_tokens(self._bundle), options.max_new_tokens
        plan = SlotPlan(options.num_slots, num_genes, longest, options.sampling, eos_ids=eos_ids, mixes=True)
        slots, num_slots, self.notice = open_slots(self._backend, plan)
        scheduler = Scheduler(
            slots,
            num_slots,
            eos_ids=eos_ids,
            max_new_tokens=longest,
            is_ready=lambda: bool(self._encoded) or self._room.is_ready(),
        )
        for event in scheduler.run(self._requests()):
            index = event.text.request.index
            to = self._receivers[index]
            if event.token_id is not None and to.wants_pieces:
                to.piece(self.piece(event))
            if event.text.is_finished:
                self._finish(event.text)
                self._receivers.pop(index).done(self.take(index))
            elif to.has_left and scheduler.cancel(index):
                self._receivers.pop(index).lost(LEFT)
                self.forget(index)

    @property
    def num_taken(self) -> int:
        """Requests that were taken so far."""
        return self._taken

    def lose(self, why: str) -> None:
        """Tell everybody whose text is not finished why it never will be."""
        while self._receivers:
            self._receivers.popitem()[1].lost(why)

    def forget(self, index: int) -> None:
        """Drop what is kept of a text that was not finished."""
        self._subjects.pop(index, None)
        self._growing.pop(index, None)

    def _requests(self) -> Iterator[Request | None]:
        """Yield requests as they come; None where there is none now but texts are in progress."""
        while True:
            if taken := self._room.take(ENCODE_CELLS):
                self._encode(taken)
            elif self._receivers and not self._room.is_ready():
                yield None
            elif not self._room.wait():
                return
            while self._encoded:
                yield self._encoded.popleft()

    def _encode(self, taken: Sequence[Waiting]) -> None:
        taken = [(asked, to) for asked, to in taken if not _is_gone(to)]
        first, self._taken = self._taken, self._taken + len(taken)
        self._receivers |= {first + i: to for i, (_, to) in enumerate(taken)}
        start = 0
        for batch in joined([asked.batch for asked, _ in taken]):
            self._admit(batch, first + start, [asked for asked, _ in taken[start : start + batch.n_cells]])
            start += batch.n_cells

    def _admit(self, batch: TokenBatch, first: int, cells: Sequence[Asked]) -> None:
        encoded = self._backend.encode(batch)
        for i, axis in enumerate(gene_axes(batch, self._bundle.vocabulary.tokens)):
            index, name = first + i, batch.cell_ids[i]
            if not np.isfinite(encoded.cell[i]).all():
                self._receivers.pop(index).done(failed(name, "its embedding is not finite"))
                continue
            self._subjects[index] = Subject(index, name, axis)
            how = cells[i].max_new_tokens, cells[i].sampling
            self._encoded.append(Request(index, cell_key(name), encoded.memory[i], batch.mask[i], *how))


def _is_gone(to: Receiver) -> bool:
    """Whether a client left while it waited; it is told so."""
    if to.has_left:
        to.lost(LEFT)
        return True
    return False
