"""The orders in work: what becomes of each, and who is told."""

from __future__ import annotations

import time
from collections import defaultdict, deque

from cellscribe.engine.bundle import Bundle
from cellscribe.engine.decode.described import description_of, failed, piece_of
from cellscribe.engine.decode.scheduler import TokenEvent
from cellscribe.engine.decode.texts import GrowingText
from cellscribe.engine.service.metrics import Metrics
from cellscribe.engine.service.orders import Begun, Box, Done, Happening, Lost, Order, Token
from cellscribe.engine.types import Description


class Ledger:
    """Orders that left the queue and are not answered yet, by the index of their request to the scheduler.

    All but :meth:`register` and :meth:`unfed` belong to the thread that drives the slots. What happens is kept until
    :meth:`flush`, so that a request is told once a round and not once a token.
    """

    def __init__(self, bundle: Bundle, metrics: Metrics) -> None:
        self._tokenizer, self._metrics = bundle.tokenizer, metrics
        self._orders: dict[int, Order] = {}
        self._growing: dict[int, GrowingText] = {}
        self._unfed: deque[tuple[int, str]] = deque()
        self._outbox: defaultdict[Box, list[Happening]] = defaultdict(list)
        self._next_index = self._tokens = 0

    def register(self, order: Order) -> int:
        """Take an order in; return its index."""
        index, self._next_index = self._next_index, self._next_index + 1
        self._orders[index] = order
        return index

    def unfed(self, index: int, why: str) -> None:
        """Note that an order comes to nothing, and why."""
        self._unfed.append((index, why))

    @property
    def has_unfed(self) -> bool:
        """Whether some orders came to nothing and were not told so."""
        return bool(self._unfed)

    def open_orders(self) -> list[tuple[int, Order]]:
        """Return the orders in work."""
        return list(self._orders.items())

    def begin(self, index: int) -> bool:
        """Note that an order gets a slot; False where nobody waits for it any more."""
        order = self._orders.get(index)
        if order is None or order.request.is_gone:
            return False
        order.begun = time.monotonic()
        if order.wants_tokens:  # others are told at the end, and need not be woken twice
            self._outbox[order.request].append(Begun(order.cell, order.begun - order.arrived))
        self._metrics.queue_seconds.observe(order.begun - order.arrived)
        return True

    def tell(self, event: TokenEvent) -> None:
        """Tell of a token, and of the end of a text."""
        index = event.text.request.index
        order = self._orders.get(index)
        if order is None:
            return
        if event.token_id is not None:
            self._tokens += 1
            if len(event.text.token_ids) == 1:
                order.first_token = time.monotonic()
            if order.wants_tokens:
                self._outbox[order.request].append(self._token(index, event, order))
        if event.text.is_finished:
            fed = order.fed
            self._answer(index, description_of(event.text, fed.cell_id, fed.axis, self._tokenizer, order.top_genes))

    def drop(self, index: int, reason: str) -> bool:
        """Forget an order; say whether it was there."""
        self._growing.pop(index, None)
        if self._orders.pop(index, None) is None:
            return False
        self._metrics.cancelled.labels(reason).inc()
        return True

    def lose(self, order: Order, status: int, message: str) -> None:
        """Tell that an order comes to nothing."""
        self._outbox[order.request].append(Lost(order.cell, status, message))

    def fail_all(self, status: int, message: str) -> None:
        """Tell so of every order in work, and forget them."""
        for order in self._orders.values():
            self.lose(order, status, message)
        for kept in (self._orders, self._growing, self._unfed):
            kept.clear()
        self.flush()

    def flush(self) -> None:
        """Deliver what has happened."""
        while self._unfed:
            index, why = self._unfed.popleft()
            if index in self._orders:
                self._answer(index, failed(self._orders[index].fed.cell_id, why))
        if self._tokens:
            self._metrics.tokens.inc(self._tokens)
            self._tokens = 0
        if self._outbox:
            told, self._outbox = self._outbox, defaultdict(list)
            for box, happenings in told.items():
                box.deliver(happenings)

    def _token(self, index: int, event: TokenEvent, order: Order) -> Token:
        growing = self._growing.setdefault(index, GrowingText(self._tokenizer))
        piece = piece_of(event, growing, order.fed.axis, order.top_genes)
        weights = event.evidence[order.fed.axis.columns >= 0] if order.wants_weights else None
        return Token(order.cell, len(event.text.token_ids) - 1, piece, weights)

    def _answer(self, index: int, description: Description) -> None:
        order = self._orders.pop(index)
        self._growing.pop(index, None)
        done = Done(order.cell, description, order.begun - order.arrived, order.first_token - order.arrived)
        self._metrics.described(description, done.first_token_s, time.monotonic() - order.arrived)
        self._outbox[order.request].append(done)
