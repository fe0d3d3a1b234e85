"""Open slots for free texts and labels of bundles without an encoder: prompts come in as slots come free."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from cellscribe.engine.backends.base import Slots
from cellscribe.engine.decode.scheduler import AnyRequest, Scheduler, TokenEvent
from cellscribe.engine.decode.texts import GrowingText
from cellscribe.engine.service.call_ledger import CallLedger
from cellscribe.engine.service.call_orders import CallOrder
from cellscribe.engine.service.families.speaking import Room, Speaker
from cellscribe.engine.service.metrics import Metrics
from cellscribe.engine.service.orders import Token
from cellscribe.engine.service.queue import Lines
from cellscribe.engine.types import Piece, TopGenes

_ROOMY = 4  # times the room that is needed: from here on slots are opened anew


class Lane:
    """Slots of one size, which stay open for as long as what comes fits them.

    Parameters
    ----------
    speaker
        What opens slots and makes requests of orders.
    queue
        Where orders wait; they are taken in turn until the next one does not fit.
    num_slots
        Texts in progress at a time.
    """

    def __init__(
        self, speaker: Speaker, queue: Lines[CallOrder], num_slots: int, ledger: CallLedger, metrics: Metrics
    ) -> None:
        self._speaker, self._queue, self._num_slots = speaker, queue, num_slots
        self._ledger, self._metrics = ledger, metrics
        self._room: Room | None = None
        self._slots: tuple[Slots, int] | None = None
        self._scheduler: Scheduler | None = None
        self._orders: dict[int, CallOrder] = {}
        self._growing: dict[int, GrowingText] = {}
        self._next_index = 0

    @property
    def busy(self) -> int:
        """Slots in use."""
        return self._scheduler.busy if self._scheduler else 0

    def takes(self, order: CallOrder) -> bool:
        """Whether an order is for slots, of whatever size."""
        return self._speaker.room_of(order.item, order.work) is not None

    def run(self, first: CallOrder, must_stop: Callable[[], bool]) -> None:
        """Answer an order and those that come while its like are in work; none is begun once something else waits."""
        if first.item.failure:
            self._begin(first)
            return
        slots, number = self._opened(first)
        self._scheduler = Scheduler(
            slots, number, eos_ids=self._speaker.eos_ids, max_new_tokens=self._speaker.most_steps, between=self._between
        )
        for event in self._scheduler.run(self._requests(first, must_stop)):
            self._hear(event)
        self._scheduler = None
        self._between()

    def close(self) -> list[CallOrder]:
        """Forget the slots after a failure; return the orders that were in work."""
        lost = list(self._orders.values())
        self._room, self._slots, self._scheduler = None, None, None
        self._orders.clear()
        self._growing.clear()
        return lost

    def _opened(self, first: CallOrder) -> tuple[Slots, int]:
        """Return slots that an order fits, those that are open where they do."""
        room = self._speaker.room_of(first.item, first.work)
        assert room is not None
        wanted = room.rounded(self._speaker.context)
        is_good = self._room is not None and room.fits(self._room) and self._room.size <= _ROOMY * wanted.size
        if self._slots is None or not is_good:
            self._slots = None  # gives its memory back first
            self._room = wanted
            self._slots = self._speaker.open(self._room, self._num_slots)
            self._metrics.slots.set(self._slots[1])
        return self._slots

    def _requests(self, first: CallOrder, must_stop: Callable[[], bool]) -> Iterator[AnyRequest | None]:
        order: CallOrder | None = first
        while True:
            if order is not None and self._begin(order):
                index, self._next_index = self._next_index, self._next_index + 1
                self._orders[index] = order
                yield self._speaker.request(index, order.item, order.work)
            head = None if must_stop() else self._queue.head()
            if head is not None and not self._fits(head):
                return
            order = None if head is None else self._queue.take(fits=self._fits)
            if order is None:
                if not self._orders or must_stop():
                    return
                yield None

    def _begin(self, order: CallOrder) -> bool:
        """Note that an order is in work; False where nobody waits for it, or there is nothing to write."""
        if not self._ledger.begin(order):
            return False
        if order.item.failure:
            self._ledger.finish(order, self._speaker.failed(order.item))
            return False
        return True

    def _fits(self, order: CallOrder) -> bool:
        room = self._speaker.room_of(order.item, order.work)
        return room is not None and self._room is not None and room.fits(self._room)

    def _between(self) -> None:
        """Before every round: send away what is late or no longer wanted, and tell what has happened."""
        over = {id(one) for one in self._ledger.look(self._orders.values())}
        for index in [index for index, one in self._orders.items() if id(one) in over]:
            del self._orders[index]
            self._growing.pop(index, None)
            if self._scheduler is not None:
                self._scheduler.cancel(index)
        self._ledger.flush()

    def _hear(self, event: TokenEvent) -> None:
        """Tell of a token, and of the end of a text."""
        index, text = event.text.request.index, event.text
        order = self._orders.get(index)
        if order is None:
            return
        now = time.monotonic()
        if event.token_id is not None:
            self._metrics.tokens.inc()
            if len(text.token_ids) == 1:
                order.first_token = now
                self._metrics.first_token_seconds.observe(now - order.arrived)
            if order.wants_tokens:
                growing = self._growing.setdefault(index, GrowingText(self._speaker.tokenizer))
                added = growing.add(event.token_id)
                piece = Piece(added, event.token_id, event.logprob, TopGenes(), TopGenes())
                self._ledger.tell(order, Token(order.cell, len(text.token_ids) - 1, piece, None))
        if text.is_finished:
            if len(text.token_ids) > 1:
                self._metrics.per_token_seconds.observe((now - order.first_token) / (len(text.token_ids) - 1))
            del self._orders[index]
            self._growing.pop(index, None)
            self._ledger.finish(order, self._speaker.answer(order.item, order.work, text))
