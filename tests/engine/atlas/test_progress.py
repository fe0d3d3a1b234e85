from __future__ import annotations

import json
import re
import time

import pytest

from cellscribe.engine.atlas import progress as module
from cellscribe.engine.atlas.manifest import ShardRecord
from cellscribe.engine.atlas.meter import Meter, together
from cellscribe.engine.atlas.progress import Progress, progress_text, prometheus


def record(number: int, cells: int = 10, failed: int = 0) -> ShardRecord:
    return ShardRecord(number, 0, cells, failed, 5 * cells, 100, "ab")


def test_stages_within_stages_count_once() -> None:
    meter = Meter()

    def items() -> object:
        for i in range(3):
            with meter.stage("read"):
                time.sleep(0.02)
            time.sleep(0.01)
            yield i

    assert list(meter.each("tokenise", items())) == [0, 1, 2]
    assert 0.06 <= meter.seconds["read"] < 0.09
    assert 0.03 <= meter.seconds["tokenise"] < 0.06


def test_workers_are_added_up() -> None:
    one, other = Meter(cells=3, places=10), Meter(cells=4, places=5)
    one.seconds["read"], other.seconds["read"] = 1.0, 2.0
    total = together([one.snapshot(), other.snapshot()])
    assert (total["cells"], total["places"], total["seconds"]["read"]) == (7, 15, 3.0)


def test_what_was_done_before_counts_but_makes_no_rate() -> None:
    progress = Progress(100, 10, {0: record(0), 1: record(1, failed=2)})
    now = progress.now()
    assert (now.cells, now.shards, now.failed, now.tokens, now.cells_per_second) == (20, 2, 2, 100, 0.0)
    assert now.seconds_left is None
    progress.tell("0", {**Meter(cells=5, tokens=7).snapshot(), "elapsed": 1.0})
    now = progress.now()
    assert (now.cells, now.tokens) == (25, 107)
    progress.add(record(2))
    assert progress.now().cells == 30


def test_a_replaced_worker_keeps_its_counts() -> None:
    progress = Progress(100, 10, {})
    progress.tell("0", {**Meter(cells=9).snapshot(), "elapsed": 5.0})
    progress.tell("0", {**Meter(cells=2).snapshot(), "elapsed": 0.5})
    assert progress.figures()["cells"] == 11


def test_what_was_not_measured_is_no_zero() -> None:
    progress = Progress(100, 10, {})
    progress.tell("0", {**Meter(cells=5, seconds={"model": 0.5, "write": 0.25}).snapshot(), "elapsed": 1.0})
    told = progress.now().as_dict()
    assert (told["padding_share"], told["idle_slot_share"]) == (None, None)
    assert told["stage_utilisation"] == {
        "read": None, "tokenise": None, "encode": None, "decode": None, "model": 0.5, "write": 0.25,
    }  # fmt: skip
    assert told["stage_seconds"]["decode"] is None


def test_figures_are_carried_on_when_a_run_is_resumed() -> None:
    first = Progress(100, 10, {})
    meter = Meter(cells=30, shared=4, places=100, real_places=90, slot_steps=10, empty_steps=1, seconds={"encode": 2.0})
    first.tell("0", {**meter.snapshot(), "elapsed": 4.0})
    told = json.loads(progress_text(first.now()))
    told["elapsed_seconds"] = 7.0
    done = {number: record(number, failed=1) for number in range(3)}
    resumed = Progress(100, 10, done, before=told)
    now = resumed.now()
    assert (now.cells, now.shared, now.utilisation["encode"], now.idle_slots) == (30, 4, 0.5, 0.1)
    meter = Meter(cells=10, failed=2, shared=1, places=100, real_places=100, slot_steps=10, seconds={"encode": 1.0})
    resumed.tell("0", {**meter.snapshot(), "elapsed": 4.0})
    now = resumed.now()
    assert (now.cells, now.failed, now.shared, now.utilisation["encode"], now.idle_slots) == (40, 5, 5, 0.375, 0.05)
    assert now.padding == pytest.approx(0.05)
    assert now.as_dict()["elapsed_seconds"] >= 7.0


def test_prometheus_text_is_well_formed() -> None:
    progress = Progress(100, 10, {0: record(0)})
    text = prometheus(progress.now())
    assert "cellscribe_atlas_cells_done_total 10" in text
    assert 'stage="' not in text  # nothing was measured yet
    progress.tell("0", {**Meter(cells=5, seconds={"encode": 0.5}).snapshot(), "elapsed": 1.0})
    text = prometheus(progress.now())
    assert 'cellscribe_atlas_stage_utilisation{stage="encode"} 0.5' in text
    assert "None" not in text
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+(\{\w+=\"\w+\"\})? -?[\d.e+-]+", line), line


def test_points_cover_a_long_run_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    progress = Progress(10**9, 10, {})
    for second in range(1, 20_000):
        clock[0] = float(second)
        progress.tell("0", {"cells": 7 * second, "elapsed": clock[0], "seconds": {}})
        now = progress.now()
    assert len(progress.points) <= 2001
    assert progress.points[0][0] < 20
    assert progress.points[-1][0] > 19_900
    assert now.cells_per_second == pytest.approx(7.0)
    assert now.seconds_left == pytest.approx((10**9 - 7 * 19_999) / 7)
