"""Interleaved timing: every round runs every call, in an order that rotates, so that drift favours none."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from cellscribe.engine.bench.row import Rounds
from cellscribe.engine.bench.work import Work
from cellscribe.engine.errors import UsageError
from cellscribe.engine.keyed import cell_key, stream_keys, uniforms

_DRAWS = 1000
_PAUSE_S = 0.01  # threads of the engine that ran last may still spin; they must not take the next one's cores
_FEWEST_ROUNDS = 3


@dataclass(frozen=True)
class Sample:
    """What one call gave: seconds of one or more samples, and milliseconds per cell where it wrote whole texts.

    `work` is what a sample could not do without, in the mean, where that changes from call to call.
    """

    seconds: tuple[float, ...]
    latency_ms: tuple[float, ...] = ()
    work: Work | None = None


Call = Callable[[], Sample]
OnRound = Callable[[int, int], None]  # rounds done, rounds expected


@dataclass(frozen=True)
class Effort:
    """How long to measure: at least `min_rounds` rounds and at least `seconds`, but no more than `max_rounds`.

    Where rounds take so long that `most_seconds` are over, three are enough.

    Raises
    ------
    UsageError
        For numbers of rounds or seconds that cannot be.
    """

    min_rounds: int = 7
    seconds: float = 10.0
    max_rounds: int = 100
    most_seconds: float = 300.0
    warmup_rounds: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.min_rounds <= self.max_rounds or self.warmup_rounds < 0:
            raise UsageError(
                f"{self.min_rounds} to {self.max_rounds} rounds cannot be run; choose at least 1, and no more than "
                f"{max(self.max_rounds, 1)}."
            )
        if not 0 <= self.seconds < float("inf"):
            raise UsageError(f"{self.seconds:g} seconds cannot be measured for; choose 0 or more.")


@dataclass
class Measured:
    """What the rounds of one call gave."""

    rounds: list[tuple[float, ...]] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    _works: list[Work] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        """Keep a round."""
        self.rounds.append(sample.seconds)
        self.latency_ms += sample.latency_ms
        if sample.work is not None:
            self._works.append(sample.work.times(len(sample.seconds)))

    @property
    def work(self) -> Work | None:
        """Mean work of a sample; None where the calls did not say."""
        if not self._works:
            return None
        return sum(self._works, Work(0, 0)).times(1 / sum(map(len, self.rounds)))


def timed(call: Callable[[], object]) -> Call:
    """Return a call that is timed as a whole."""

    def run() -> Sample:
        started = time.perf_counter()
        call()
        return Sample((time.perf_counter() - started,))

    return run


def interleave(calls: Sequence[Call], effort: Effort, on_round: OnRound | None = None) -> list[Measured]:
    """Run all calls in every round, each beginning with the next one and every other one backwards.

    Parameters
    ----------
    calls
        What is compared; a call that times itself returns its own samples.
    effort
        When to stop; the rounds that warm up come before and do not count.
    on_round
        Called after every round with rounds done and, as far as can be told, rounds in all.
    """
    found = [Measured() for _ in calls]
    for _ in range(effort.warmup_rounds):
        for call in calls:
            call()
    gc.collect()
    started, done = time.perf_counter(), 0
    while done < effort.max_rounds:
        for at in in_turn(len(calls), done):
            time.sleep(_PAUSE_S)
            found[at].add(calls[at]())
        done += 1
        spent = time.perf_counter() - started
        if on_round is not None:
            expected = max(effort.min_rounds, round(done * effort.seconds / max(spent, 1e-9)), done)
            on_round(done, min(expected, effort.max_rounds))
        if done >= effort.min_rounds and spent >= effort.seconds:
            break
        if done >= _FEWEST_ROUNDS and spent >= effort.most_seconds:
            break
    return found


FEWEST_FOR_95 = 6  # rounds; drawn from fewer, the least and the most come up too often to be left out of 95 %


def in_turn(count: int, round_number: int) -> list[int]:
    """Return the order of a round: each begins with the next one, and every other round runs backwards."""
    step = -1 if round_number % 2 else 1
    return [(round_number + step * i) % count for i in range(count)]


@dataclass(frozen=True)
class Ratio:
    """A ratio of medians, and an interval around it.

    With `FEWEST_FOR_95` rounds or more it holds the ratio with 95 % confidence (bootstrap over rounds); with fewer it
    is no more than the least and the most that a single round gave.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio(a: Rounds, b: Rounds, seed: int = 0) -> Ratio:
    """Return median(a) / median(b), with an interval; see :class:`Ratio`.

    Whole rounds are drawn, as the samples within one are not independent; the same rounds of both where they were
    interleaved (as many of one as of the other). The random numbers are keyed by `seed` alone.

    Raises
    ------
    UsageError
        When one side has no samples.
    """
    if not any(a) or not any(b):
        raise UsageError("a ratio needs samples on both sides; measure both.")
    if not all(map(len, a)) or not all(map(len, b)):
        raise UsageError("a ratio needs samples in every round; leave empty rounds out.")
    ours, theirs = [np.array(one) for one in a], [np.array(one) for one in b]
    value = float(np.median(np.concatenate(ours)) / np.median(np.concatenate(theirs)))
    if min(len(ours), len(theirs)) < FEWEST_FOR_95:
        pairs = zip(ours, theirs, strict=True) if len(ours) == len(theirs) else product(ours, theirs)
        each = [float(np.median(x) / np.median(y)) for x, y in pairs]
        return Ratio(value, min(value, *each), max(value, *each))
    first = _drawn(len(ours), seed, "a")
    second = first if len(ours) == len(theirs) else _drawn(len(theirs), seed, "b")
    values = [
        np.median(np.concatenate([ours[i] for i in i_s])) / np.median(np.concatenate([theirs[j] for j in j_s]))
        for i_s, j_s in zip(first, second, strict=True)
    ]
    low, high = np.quantile(values, (0.025, 0.975))
    return Ratio(value, float(low), float(high))


def ratios(rounds: Mapping[str, Rounds], base: str) -> dict[str, Ratio]:
    """Return how many times as long as `base` each of the others takes."""
    return {name: ratio(one, rounds[base]) for name, one in rounds.items() if name != base}


def _drawn(count: int, seed: int, stream: str) -> list[list[int]]:
    """Indices [draws][count] of rounds, drawn with replacement."""
    keys = stream_keys(seed, np.array([cell_key(stream)], np.uint64))
    drawn = uniforms(keys[:, None], np.arange(_DRAWS * count)[None])[0].reshape(_DRAWS, count)
    found: list[list[int]] = np.minimum((drawn * count).astype(np.int64), count - 1).tolist()
    return found
