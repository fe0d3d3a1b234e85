from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_service_queue import CELL

from cellscribe.engine.decode.evidence import GeneAxis
from cellscribe.engine.decode.scheduler import Request, Text, TokenEvent
from cellscribe.engine.service.ledger import Ledger
from cellscribe.engine.service.metrics import Metrics
from cellscribe.engine.service.orders import Begun, Done, FedCell, Happening, Lost, Order, Token

FAR = 1e18
AXIS = GeneAxis(("<cls>", "CD3D", "LTB"), np.array([-1, 0, 1]))
FED = FedCell("c1", np.arange(3), np.ones(3, np.float32), np.ones(3, bool), AXIS)


class Box:
    """A request that keeps what it is told, delivery by delivery."""

    def __init__(self) -> None:
        self.is_gone, self.told = False, list[list[Happening]]()

    def deliver(self, happenings: list[Happening]) -> None:
        self.told.append(happenings)


class Letters:
    """A tokenizer whose token 0 is "a"."""

    def decode(self, token_ids: list[int], skip_special_tokens: bool = True) -> str:
        return "".join(chr(97 + one) for one in token_ids)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def ledger(metrics: Metrics) -> Ledger:
    bundle: Any = SimpleNamespace(tokenizer=Letters())
    return Ledger(bundle, metrics)


def begun(ledger: Ledger, box: Box, **options: Any) -> tuple[int, Text]:
    index = ledger.register(Order(box, 0, FED, "someone", FAR, **options))
    assert ledger.begin(index)
    request = Request(index, 7, np.zeros((3, 2)), np.ones(3, bool), 9, None)
    return index, Text(request, 0.0, np.zeros(3, np.float32))


def event(text: Text, token: int | None, reason: str = "", evidence: tuple[float, ...] = (0.2, 0.6, 0.2)) -> TokenEvent:
    """What the scheduler tells of a token, or of the end of text for None."""
    seen = np.array(evidence, np.float32)
    if token is not None:
        text.token_ids.append(token)
        text.logprobs.append(-0.5)
        text.evidence += seen
    text.finish_reason = reason
    return TokenEvent(text, token, -0.5, seen)


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def test_a_text_is_told_token_by_token_and_then_whole(ledger: Ledger, metrics: Metrics) -> None:
    box = Box()
    _, text = begun(ledger, box, wants_tokens=True, wants_weights=True)
    ledger.tell(event(text, 0))
    ledger.tell(event(text, 1, "length"))
    assert box.told == []  # until the round is over
    ledger.flush()
    (told,) = box.told
    assert [type(one) for one in told] == [Begun, Token, Token, Done]
    first = told[1]
    assert isinstance(first, Token)
    assert (first.number, first.piece.text, first.piece.top_genes.symbols) == (0, "a", ("CD3D", "LTB"))
    np.testing.assert_allclose(first.weights, [0.6, 0.2])  # <cls> is no gene
    done = told[3]
    assert isinstance(done, Done)
    assert (done.description.text, done.description.finish_reason, done.description.cell_id) == ("ab", "length", "c1")
    assert 0 <= done.queue_s <= done.first_token_s
    assert ledger.open_orders() == []
    assert sample(metrics, "cellscribe_tokens_total") == 2
    assert sample(metrics, "cellscribe_cells_total", task="describe", status="ok") == 1
    ledger.flush()
    assert len(box.told) == 1  # nothing twice


def test_who_wants_no_tokens_is_told_the_end_alone(ledger: Ledger) -> None:
    box = Box()
    _, text = begun(ledger, box)
    ledger.tell(event(text, 0, "length"))
    ledger.flush()
    assert [type(one) for one in box.told[0]] == [Done]


def test_a_text_that_ends_before_its_first_token_spoils_no_figure(ledger: Ledger, metrics: Metrics) -> None:
    box = Box()
    _, text = begun(ledger, box, wants_tokens=True)
    ledger.tell(event(text, None, "stop"))
    ledger.flush()
    done = box.told[0][-1]
    assert isinstance(done, Done)
    assert (done.description.is_ok, done.description.text) == (True, "")
    assert math.isnan(done.first_token_s)
    assert sample(metrics, "cellscribe_time_to_first_token_seconds_sum") == 0
    assert sample(metrics, "cellscribe_time_to_first_token_seconds_count") == 0


def test_an_output_that_is_not_finite_fails_its_cell(ledger: Ledger, metrics: Metrics) -> None:
    box = Box()
    _, text = begun(ledger, box)
    ledger.tell(event(text, None, "failed"))
    ledger.flush()
    done = box.told[0][-1]
    assert isinstance(done, Done)
    assert done.description.status == "failed: the model's output is not finite"
    assert sample(metrics, "cellscribe_cells_total", task="describe", status="failed") == 1


def test_a_cell_that_cannot_be_fed_is_told_at_the_next_flush(ledger: Ledger) -> None:
    box = Box()
    index = ledger.register(Order(box, 3, CELL, "someone", FAR))
    ledger.unfed(index, "all counts are zero")
    assert ledger.has_unfed
    ledger.flush()
    (done,) = box.told[0]
    assert isinstance(done, Done)
    assert (done.cell, done.description.status) == (3, "failed: all counts are zero")
    assert not ledger.has_unfed
    assert math.isnan(done.queue_s)


def test_what_was_dropped_is_told_of_no_more(ledger: Ledger, metrics: Metrics) -> None:
    box = Box()
    index, text = begun(ledger, box, wants_tokens=True)
    ledger.flush()
    assert ledger.drop(index, "client")
    assert not ledger.drop(index, "client")
    ledger.tell(event(text, 0, "length"))
    ledger.unfed(index, "late news")
    ledger.flush()
    assert len(box.told) == 1
    assert sample(metrics, "cellscribe_cancelled_total", reason="client") == 1
    assert not ledger.begin(index)


def test_nobody_begins_for_who_is_gone(ledger: Ledger) -> None:
    box = Box()
    index = ledger.register(Order(box, 0, CELL, "someone", FAR))
    box.is_gone = True
    assert not ledger.begin(index)


def test_a_failure_is_told_to_all_in_work_and_forgets_them(ledger: Ledger) -> None:
    one, other = Box(), Box()
    begun(ledger, one)
    index = ledger.register(Order(other, 5, CELL, "someone", FAR))
    ledger.unfed(index, "all counts are zero")
    ledger.fail_all(500, "the model failed (why); try again.")
    assert [type(x) for x in one.told[0]] == [Lost]
    assert other.told == [[Lost(5, 500, "the model failed (why); try again.")]]
    assert ledger.open_orders() == []
