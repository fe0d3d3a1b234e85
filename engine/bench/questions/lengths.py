"""Whole texts, from admission to the last token, against their length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from cellscribe.engine.bench.case import Case, Group
from cellscribe.engine.bench.clock import Call, Sample, timed
from cellscribe.engine.bench.contender import Contender
from cellscribe.engine.bench.row import Row
from cellscribe.engine.bench.settings import Settings
from cellscribe.engine.bench.texts import write


def groups(contenders: Sequence[Contender], settings: Settings) -> Iterator[Group]:
    """One group a length, all contenders in it; every slot writes one text of exactly that length."""
    for new_tokens in settings.new_tokens:
        able = [one for one in contenders if one.prompt_len + new_tokens <= one.max_positions]
        cases = [
            Case(_row(one, settings.num_slots, new_tokens), partial(_open, one, settings.num_slots, new_tokens))
            for one in able
        ]
        if cases:
            yield Group(f"lengths {new_tokens}", tuple(cases))


def _row(one: Contender, num_slots: int, new_tokens: int) -> Row:
    return one.row(
        "lengths",
        "texts from admission to last token",
        "tokens",
        num_slots * new_tokens,
        one.cost.text(num_slots, new_tokens, one.longest_memory),
        ("the cells were encoded beforehand",),
        slots=num_slots,
        new_tokens=new_tokens,
        cells=num_slots,
    )


def _open(one: Contender, num_slots: int, new_tokens: int) -> Call:
    slots = one.backend.open_slots(one.plan(num_slots, one.longest_memory, new_tokens))
    requests = tuple(one.requests(num_slots, one.longest_memory))

    def run() -> Sample:
        latency_ms: list[float] = []
        sample = timed(lambda: latency_ms.extend(write(slots, num_slots, iter(requests), new_tokens)))()
        return Sample(sample.seconds, tuple(latency_ms))

    return run
