"""Continuous admission against static batches, on texts of mixed lengths."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from cellscribe.engine.bench.case import Case, Group
from cellscribe.engine.bench.clock import Call, Sample
from cellscribe.engine.bench.contender import Contender
from cellscribe.engine.bench.row import Row
from cellscribe.engine.bench.settings import Settings
from cellscribe.engine.bench.texts import write
from cellscribe.engine.bench.work import Work
from cellscribe.engine.keyed import stream_keys, uniforms

SHORTEST, LONGEST = 8, 96
_TEXTS_PER_SLOT, _STREAM = 4, 7


def groups(contenders: Sequence[Contender], settings: Settings) -> Iterator[Group]:
    """All ways and all contenders in one group."""
    lengths = drawn_lengths(_TEXTS_PER_SLOT * settings.num_slots, settings.seed)
    cases = []
    for one in contenders:
        for what, note in _WAYS.items():
            row = _row(one, what, note, lengths, settings.num_slots)
            cases.append(Case(row, partial(_open, one, lengths, settings.num_slots, what)))
    yield Group("admission", tuple(cases))


_CONTINUOUS, _STATIC, _PADDED = "continuous admission", "static batches", "static batches, ended texts computed"
_WAYS = {
    _CONTINUOUS: "a free slot takes the next cell at once",
    _STATIC: "the next cells wait for the batch's longest text, and so do the shorter texts; "
    "slots at the end of a batch that have ended are not computed",
    _PADDED: "as static batches, but every text of a batch is computed until the longest has ended, as generate of "
    "transformers does; the tokens past a text's end are not counted",
}


def drawn_lengths(count: int, seed: int) -> tuple[int, ...]:
    """Draw `count` lengths of texts in tokens, uniform from 8 to 96; a function of the seed alone."""
    keys = stream_keys(seed, np.arange(count, dtype=np.uint64), _STREAM)
    drawn = uniforms(keys, np.zeros(count, np.int64))
    return tuple(int(one) for one in SHORTEST + np.floor(drawn * (LONGEST - SHORTEST + 1)))


def _row(one: Contender, what: str, note: str, lengths: tuple[int, ...], num_slots: int) -> Row:
    return one.row(
        "admission",
        what,
        "tokens",
        sum(lengths),
        _work(one, lengths, num_slots),
        (note,),
        slots=num_slots,
        cells=len(lengths),
        shortest_text=min(lengths),
        longest_text=max(lengths),
    )


def _work(one: Contender, lengths: tuple[int, ...], num_slots: int) -> Work:
    """Full slots all the time: no way of admitting does with fewer steps."""
    mean = sum(lengths) / len(lengths)
    steps = (sum(lengths) - len(lengths)) / num_slots
    step = one.cost.step(num_slots, one.prompt_len + mean / 2, one.longest_memory)
    return one.cost.prompt(num_slots, one.longest_memory).times(len(lengths) / num_slots) + step.times(steps)


def _open(one: Contender, lengths: tuple[int, ...], num_slots: int, way: str) -> Call:
    slots = one.backend.open_slots(one.plan(num_slots, one.longest_memory, LONGEST))
    size = len(lengths) if way == _CONTINUOUS else num_slots
    computed = padded(lengths, size) if way == _PADDED else lengths
    requests = tuple(one.requests(len(lengths), one.longest_memory, computed))
    batches = [requests[at : at + size] for at in range(0, len(requests), size)]

    def run() -> Sample:
        begun, latency_ms = time.perf_counter(), list[float]()
        for batch in batches:
            started = time.perf_counter()
            found = write(slots, num_slots, iter(batch), LONGEST)
            waited = (time.perf_counter() - started) * 1e3
            latency_ms += found if way == _CONTINUOUS else [waited] * len(batch)
        return Sample((time.perf_counter() - begun,), tuple(latency_ms))

    return run


def padded(lengths: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Return the length of the longest of each `size` consecutive texts, once per text."""
    batches = (lengths[at : at + size] for at in range(0, len(lengths), size))
    return tuple(max(batch) for batch in batches for _ in batch)
