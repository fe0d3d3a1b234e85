from __future__ import annotations

import time

import numpy as np
import pytest

from cellscribe.engine.bench.clock import Effort, Sample, interleave, ratio, ratios, timed
from cellscribe.engine.bench.work import Work
from cellscribe.engine.errors import UsageError


def test_rounds_are_interleaved_and_their_order_rotates() -> None:
    seen: list[str] = []

    def call(name: str) -> Sample:
        seen.append(name)
        return Sample((1.0, 2.0), (3.0,))

    calls = [lambda name=name: call(name) for name in "ABC"]
    found = interleave(calls, Effort(min_rounds=4, seconds=0.0, warmup_rounds=1))
    assert "".join(seen) == "ABC" + "ABC" + "BAC" + "CAB" + "ACB"
    assert [len(one.rounds) for one in found] == [4, 4, 4]
    assert found[0].rounds[0] == (1.0, 2.0)
    assert found[2].latency_ms == [3.0] * 4


def test_work_is_the_mean_over_samples() -> None:
    samples = iter([Sample((1.0,), work=Work(10, 1)), Sample((1.0, 1.0, 1.0), work=Work(2, 5))])
    (found,) = interleave([lambda: next(samples)], Effort(min_rounds=2, seconds=0.0, warmup_rounds=0))
    assert found.work == Work(4, 4)
    assert interleave([timed(lambda: None)], Effort(1, 0.0))[0].work is None


def test_both_the_rounds_and_the_time_are_kept() -> None:
    told: list[tuple[int, int]] = []
    call = timed(lambda: time.sleep(0.002))
    (found,) = interleave([call], Effort(min_rounds=2, seconds=0.1, warmup_rounds=0), lambda *at: told.append(at))
    assert sum(sum(one) for one in found.rounds) < 0.1  # the pauses between the rounds count as time too
    assert 3 <= len(found.rounds) <= 10
    assert [done for done, _ in told] == list(range(1, len(found.rounds) + 1))
    assert all(done <= expected for done, expected in told)


def test_there_are_no_more_than_the_most_rounds() -> None:
    (found,) = interleave([timed(lambda: None)], Effort(min_rounds=1, seconds=60.0, max_rounds=3))
    assert len(found.rounds) == 3


def test_three_rounds_are_enough_where_they_take_too_long() -> None:
    effort = Effort(min_rounds=50, seconds=60.0, most_seconds=0.0)
    assert len(interleave([timed(lambda: None)], effort)[0].rounds) == 3


@pytest.mark.parametrize("changes", [{"min_rounds": 0}, {"min_rounds": 5, "max_rounds": 4}, {"seconds": -1.0}])
def test_efforts_that_cannot_be(changes: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="choose"):
        Effort(**changes)  # type: ignore[arg-type]


def test_a_ratio_of_medians_and_its_interval() -> None:
    rng = np.random.default_rng(0)
    a = tuple(tuple(rng.normal(2.0, 0.1, 8)) for _ in range(20))
    b = tuple(tuple(rng.normal(1.0, 0.05, 8)) for _ in range(20))
    found = ratio(a, b)
    assert found.low < 2.0 < found.high
    assert found.low < found.value < found.high < found.low + 0.2
    assert found == ratio(a, b)
    assert found != ratio(a, b, seed=1)


def test_drift_that_both_share_does_not_widen_the_interval() -> None:
    drift = np.linspace(1.0, 3.0, 30)
    a, b = tuple((2 * one,) for one in drift), tuple((one,) for one in drift)
    found = ratio(a, b)
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))


def test_rounds_are_drawn_whole() -> None:
    """Samples of one round that agree with each other are one observation, not many."""
    a = ((1.0,) * 50, (3.0,) * 50)
    found = ratio(a, ((1.0,),) * 3)
    assert (found.low, found.high) == (1.0, 3.0)


def test_ratios_to_a_base() -> None:
    found = ratios({"ours": ((1.0,),), "theirs": ((4.0,),)}, "ours")
    assert list(found) == ["theirs"]
    assert str(found["theirs"]) == "4.00 (4.00 to 4.00)"


@pytest.mark.parametrize(("a", "b"), [((), ((1.0,),)), (((1.0,),), ((),)), (((1.0,), ()), ((1.0,), (1.0,)))])
def test_a_ratio_needs_samples(a: tuple[tuple[float, ...], ...], b: tuple[tuple[float, ...], ...]) -> None:
    with pytest.raises(UsageError, match="samples"):
        ratio(a, b)


def test_few_rounds_give_the_least_and_the_most_and_no_confidence() -> None:
    a, b = ((3.0,), (4.0,), (8.0,)), ((1.0,), (2.0,), (1.0,))
    found = ratio(a, b)
    assert (found.value, found.low, found.high) == (4.0, 2.0, 8.0)
    many = ratio(a * 3, b * 3)
    assert many.value == 4.0
    assert 2.0 <= many.low < many.high <= 8.0
