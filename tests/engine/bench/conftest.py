from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from cellscribe.engine.bench.clock import Effort
from cellscribe.engine.bench.contender import Contender
from cellscribe.engine.bench.row import Row
from cellscribe.engine.bench.settings import Settings
from cellscribe.engine.bench.setup import open_contender
from cellscribe.engine.bench.work import Work
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.packaged import packaged_bundle


@pytest.fixture(scope="session")
def contender() -> Contender:
    """The packaged bundle on the CPU."""
    return open_contender(open_bundle(packaged_bundle()), "onnxruntime-cpu", threads=1)


@pytest.fixture
def tiny() -> Settings:
    """Settings that end at once."""
    quick = Settings.quick()
    effort = Effort(min_rounds=2, seconds=0.0, warmup_rounds=0)
    return replace(quick, slots=(1, 2), new_tokens=(32,), cells=(3,), num_slots=2, text_len=32, effort=effort)


@pytest.fixture
def make_row() -> Callable[..., Row]:
    """A row of step times whose median is 0.25 s, unless told otherwise."""

    def make(**changes: object) -> Row:
        row = Row(
            question="slots",
            what="a decode step",
            who="ours",
            sizes={"slots": 8, "memory_len": 1201},
            precision="fp32",
            threads=2,
            unit="tokens",
            units=8,
            rounds=((0.2, 0.25), (0.25, 0.3)),
            work=Work(bytes=2e9, flops=3e9),
        )
        return replace(row, **changes)  # type: ignore[arg-type]

    return make
