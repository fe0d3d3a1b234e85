from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from cellscribe.engine.backends.base import Admission, Chosen, Ready
from cellscribe.engine.bench import run as run_module
from cellscribe.engine.bench.clock import Effort
from cellscribe.engine.bench.contender import Contender
from cellscribe.engine.bench.cost import Cost
from cellscribe.engine.bench.hardware import Hardware
from cellscribe.engine.bench.precision import precision_named
from cellscribe.engine.bench.progress import Silent
from cellscribe.engine.bench.questions import QUESTIONS, questions_named
from cellscribe.engine.bench.questions.admission import LONGEST, SHORTEST, _work, drawn_lengths, padded
from cellscribe.engine.bench.results import Results
from cellscribe.engine.bench.roofline import Roofline
from cellscribe.engine.bench.row import Row
from cellscribe.engine.bench.run import ask, measured
from cellscribe.engine.bench.settings import Settings
from cellscribe.engine.bench.setup import bench_cells, results_of
from cellscribe.engine.bench.texts import Steps
from cellscribe.engine.bench.work import Work
from cellscribe.engine.bundle.shapes import CrossShape, DecoderShape, EncoderShape
from cellscribe.engine.errors import InputError, RoomError, UsageError


def test_the_work_of_admission_by_hand() -> None:
    """Four texts of 6 tokens in the mean in two slots: two rounds of prompts, and (24 - 4) / 2 steps of both."""
    cost = Cost(
        EncoderShape(6, 1, 2, 5),
        DecoderShape(10, 8, 2, 1, 2, 1, 4, 16, 32),
        CrossShape("latent", 1, 2, 2, 4, 6, False),
        2,
        precision_named("fp32"),
    )
    contender = cast("Contender", SimpleNamespace(cost=cost, prompt_len=2, longest_memory=4))
    prompts = Work(bytes=3968, flops=7616, state_flops=128)  # of two cells
    steps = Work(bytes=6720, flops=6848, state_flops=1024)  # of two slots, 2 + 6 / 2 tokens in use
    assert _work(contender, (8, 4, 6, 6), 2) == prompts.times(2) + steps.times(10)
    assert _work(contender, (8, 4, 6, 6), 2) == Work(75_136, 83_712, 10_496)


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Counts measurements of the roofline, each the quick one or not, without making them."""
    asked: list[bool] = []

    def measure(self: Roofline, *, is_quick: bool = False) -> None:
        asked.append(is_quick)
        self.add({"read": 20e9, "copy": 18e9, "fp32": 60e9})

    monkeypatch.setattr(Roofline, "measure", measure)
    return asked


def results(folder: Path, contender: Contender, settings: Settings) -> Results:
    return results_of(folder, [contender], settings, "cellscribe bench demo", Hardware("a CPU", 1, 1.0, 0))


def rows_of(name: str, contenders: Sequence[Contender], settings: Settings) -> list[Row]:
    groups = QUESTIONS[name].groups(contenders, settings)
    return [row for group in groups for row in measured(group, settings.effort)]


@pytest.mark.parametrize("name", list(QUESTIONS))
def test_every_question_is_answered(name: str, contender: Contender, tiny: Settings) -> None:
    rows = rows_of(name, [contender], tiny)
    assert rows
    for row in rows:
        assert row.question == name
        assert row.median > 0
        assert Row.from_dict(row.as_dict()).median == pytest.approx(row.median)
        assert row.peak_memory_bytes is None or row.peak_memory_bytes > 1e6
    if name not in ("cells", "reading"):
        assert all(row.work is not None and row.work.flops > 0 for row in rows)


def test_all_contenders_are_in_the_same_rounds(contender: Contender, tiny: Settings) -> None:
    other = replace(contender, who="another")
    for name in ("slots", "memory", "prompts"):
        for group in QUESTIONS[name].groups([contender, other], tiny):
            assert {case.row.who for case in group.cases} == {contender.who, "another"}


def test_sizes_of_the_steps(contender: Contender, tiny: Settings) -> None:
    assert [row.sizes["slots"] for row in rows_of("slots", [contender], tiny)] == [1, 2]
    lengths = [row.sizes["memory_len"] for row in rows_of("memory", [contender], tiny)]
    assert lengths == [64, 128, 257]  # the bundle's own, as it has no 300 genes
    room = [row.sizes["capacity"] for row in rows_of("capacity", [contender], tiny)]
    assert room == [128, 256, 512]
    assert len({row.work for row in rows_of("capacity", [contender], tiny)}) == 1


def test_texts_have_the_lengths_asked_for(contender: Contender, tiny: Settings) -> None:
    (row,) = rows_of("lengths", [contender], tiny)
    assert (row.units, len(row.latency_ms)) == (2 * 32, 2 * 2)
    rows = rows_of("admission", [contender], tiny)
    assert len({row.what for row in rows}) == len({row.notes for row in rows}) == 3
    assert {row.units for row in rows} == {sum(drawn_lengths(8, tiny.seed))}
    assert {len(row.latency_ms) for row in rows} == {2 * 8}


def test_a_padded_batch_computes_its_longest_text_in_every_slot() -> None:
    assert padded((3, 9, 4, 8, 2), 2) == (9, 9, 8, 8, 2)


def test_lengths_are_drawn_by_key() -> None:
    found = drawn_lengths(2000, 0)
    assert found[:10] == drawn_lengths(10, 0)
    assert found != drawn_lengths(2000, 1)
    assert (min(found), max(found)) == (SHORTEST, LONGEST)
    assert 50 < np.mean(found) < 54


def test_a_number_of_cells_that_takes_too_long_is_left_out(
    tmp_path: Path, contender: Contender, tiny: Settings, rates: list[bool]
) -> None:
    settings = replace(tiny, cells=(2, 1_000_000), most_seconds=60.0)
    found = results(tmp_path, contender, settings)
    ask(questions_named(["cells"]), [contender], settings, found)
    assert [row.sizes["cells"] for row in found.rows] == [2]
    assert "a run may take 60 s" in found.skipped["cells 1000000"]


class CountingSlots:
    """Slots that write zeros and count their work."""

    depth = 1

    def __init__(self, steps_per_ticket: int) -> None:
        self.steps_per_ticket = steps_per_ticket
        self.log = ""

    def admit(self, admissions: Sequence[Admission]) -> Ready:
        self.log += "A"
        return self._ready(len(admissions), 1)

    def step(self, active: np.ndarray) -> Ready:
        self.log += "s"
        return self._ready(len(active), self.steps_per_ticket)

    def _ready(self, count: int, steps: int) -> Ready:
        slots = np.arange(count)
        one = Chosen(slots, np.zeros(count, np.int64), np.zeros(count, np.float32), np.zeros((count, 3), np.float32))
        return Ready((one,) * steps)


@pytest.mark.parametrize(("per_ticket", "log"), [(1, "A" + 31 * "s" + "As"), (4, "A" + 7 * "s" + "As")])
def test_texts_are_begun_anew_when_they_are_full(contender: Contender, per_ticket: int, log: str) -> None:
    slots = CountingSlots(per_ticket)
    backend = type("Backend", (), {"open_slots": lambda self, plan: slots})()
    other = replace(contender, backend=backend)
    other.__dict__["encoded"] = contender.encoded
    steps = Steps(other, 2, 257, 32, burst=log.count("s"))
    sample = steps()
    assert len(sample.seconds) == log.count("s")
    assert slots.log == log
    written = [1 + per_ticket * at + (per_ticket - 1) / 2 for at in (*range(log.count("s") - 1), 0)]
    work = contender.cost.step(2, contender.prompt_len + float(np.mean(written)), 257)
    assert sample.work is not None
    assert sample.work.bytes == pytest.approx(work.bytes)
    assert sample.work.flops == pytest.approx(work.flops)


@pytest.mark.parametrize(("stale", "times"), [(60.0, [False, True]), (0.0, [False, True, True])])
def test_a_run_measures_the_roofline_around_its_questions(
    tmp_path: Path,
    contender: Contender,
    tiny: Settings,
    rates: list[bool],
    monkeypatch: pytest.MonkeyPatch,
    stale: float,
    times: list[bool],
) -> None:
    found = results(tmp_path, contender, tiny)
    monkeypatch.setattr(run_module, "_STALE_SECONDS", stale)
    ask(questions_named(["slots", "prompts"]), [contender], tiny, found)
    assert rates == times
    assert found.finished == ["slots 1", "slots 2", "prompts 1", "prompts 2"]
    assert all(row.percent_of_roofline and row.percent_of_roofline > 0 for row in found.judged())


def test_a_resumed_run_measures_only_what_is_missing(
    tmp_path: Path, contender: Contender, tiny: Settings, rates: list[bool]
) -> None:
    found = results(tmp_path, contender, tiny)
    ask(questions_named(["slots"]), [contender], tiny, found)
    first = found.judged()
    again = results(tmp_path, contender, tiny)
    again.resume()
    ask(questions_named(["slots", "prompts"]), [contender], tiny, again)
    assert [row.rounds for row in again.rows[:2]] == [Row.from_dict(row.as_dict()).rounds for row in first]
    assert again.finished == ["slots 1", "slots 2", "prompts 1", "prompts 2"]


def test_an_interrupted_run_keeps_its_rows(
    tmp_path: Path, contender: Contender, tiny: Settings, rates: list[bool]
) -> None:
    class Interrupting(Silent):
        def on_group(self, question: str, key: str) -> None:
            if key == "slots 2":
                raise KeyboardInterrupt

    found = results(tmp_path, contender, tiny)
    with pytest.raises(KeyboardInterrupt):
        ask(questions_named(["slots"]), [contender], tiny, found, Interrupting())
    again = results(tmp_path, contender, tiny)
    again.resume()
    assert again.finished == ["slots 1"]


def test_what_has_no_room_is_left_out_with_its_reason(
    tmp_path: Path, contender: Contender, tiny: Settings, rates: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(group: object, effort: Effort, watcher: object) -> None:
        raise RoomError("no room for 64 slots.")

    monkeypatch.setattr(run_module, "measured", no_room)
    found = results(tmp_path, contender, tiny)
    ask(questions_named(["slots"]), [contender], tiny, found)
    assert found.skipped == {"slots 1": "no room for 64 slots.", "slots 2": "no room for 64 slots."}
    assert found.rows == []


def test_questions_by_name() -> None:
    assert [one.name for one in questions_named(["memory", "slots"])] == ["slots", "memory"]
    assert len(questions_named([])) == len(QUESTIONS)
    assert [one.name for one in questions_named([], describes=False)] == ["encoding", "reading"]
    with pytest.raises(UsageError, match="'speed' is not known; choose from slots"):
        questions_named(["speed"])
    with pytest.raises(UsageError, match="encoder alone"):
        questions_named(["slots"], describes=False)


def test_cells_must_suit_the_bundle(contender: Contender, tmp_path: Path) -> None:
    batch, path = bench_cells(contender.bundle)
    assert batch.mask.shape == (16, 257)
    assert path.name == "cells.h5ad"
    with pytest.raises(InputError):
        bench_cells(contender.bundle, tmp_path / "none.h5ad")
    with pytest.raises(UsageError, match="nothing takes part"):
        results_of(tmp_path, [], Settings(), "", Hardware.here())
