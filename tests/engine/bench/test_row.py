from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from cellscribe.engine.bench.ceilings import Ceilings
from cellscribe.engine.bench.row import Row, Spread
from cellscribe.engine.errors import InputError, UsageError

MakeRow = Callable[..., Row]


def test_rates_follow_from_the_median(make_row: MakeRow) -> None:
    row = make_row(rounds=((0.2, 0.25, 1.0),))
    assert row.median == 0.25
    assert row.units_per_s == 32
    assert row.gigabytes_per_s == 8
    assert row.gigaflops_per_s == 12


def test_the_slower_of_bytes_and_operations_is_the_roofline(make_row: MakeRow) -> None:
    by_bytes = make_row(ceilings=Ceilings(bandwidth=20e9, matrix=60e9))
    assert by_bytes.bound_seconds == pytest.approx(0.1)
    assert by_bytes.percent_of_roofline == pytest.approx(40)
    assert by_bytes.percent_of_bandwidth == pytest.approx(40)
    assert by_bytes.percent_of_matrix == pytest.approx(20)
    by_operations = make_row(ceilings=Ceilings(bandwidth=200e9, matrix=15e9))
    assert by_operations.percent_of_roofline == pytest.approx(80)
    assert by_operations.percent_of_bandwidth == pytest.approx(4)


def test_an_unknown_matrix_rate_bounds_nothing(make_row: MakeRow) -> None:
    row = make_row(ceilings=Ceilings(bandwidth=20e9))
    assert row.percent_of_roofline == pytest.approx(40)
    assert row.percent_of_matrix is None


def test_without_ceilings_or_work_there_are_no_shares(make_row: MakeRow) -> None:
    assert make_row().percent_of_roofline is None
    row = make_row(work=None, ceilings=Ceilings(1e9))
    assert (row.bound_seconds, row.gigabytes_per_s, row.percent_of_bandwidth) == (None, None, None)


def test_percentiles_of_the_time_per_cell(make_row: MakeRow) -> None:
    row = make_row(latency_ms=tuple(range(101)))
    assert [row.latency(one) for one in (50, 90, 99)] == [50, 90, 99]
    assert make_row().latency(50) is None


def test_spread() -> None:
    spread = Spread.of((4.0, 1.0, 2.0, 3.0, 5.0))
    assert spread == Spread(1, 2, 3, 4, 5)
    assert spread.interquartile_range == 2


def test_a_row_comes_back_from_json(make_row: MakeRow) -> None:
    row = make_row(ceilings=Ceilings(20e9, None), latency_ms=(1.5, 2.5), notes=("a note",), peak_memory_bytes=7)
    told = json.loads(json.dumps(row.as_dict(), allow_nan=False))
    assert Row.from_dict(told) == row
    assert told["derived"]["median_s"] == 0.25
    assert told["derived"]["percent_of_roofline"] == pytest.approx(40)


def test_a_row_without_samples_is_valid_json(make_row: MakeRow) -> None:
    told = make_row(rounds=()).as_dict()
    assert json.loads(json.dumps(told, allow_nan=False))["derived"]["median_s"] is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"unit": "genes"}, "genes"), ({"units": 0}, "more than 0"), ({"rounds": ((0.1, 0.0),)}, "no time")],
)
def test_rows_that_cannot_be(make_row: MakeRow, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make_row(**changes)


@pytest.mark.parametrize("name", ["rounds", "sizes", "work"])
def test_a_damaged_row_is_refused(make_row: MakeRow, name: str) -> None:
    told = make_row().as_dict()
    with pytest.raises(InputError, match="damaged"):
        Row.from_dict({**told, name: 3})
    del told[name]
    with pytest.raises(InputError, match="damaged"):
        Row.from_dict(told)
