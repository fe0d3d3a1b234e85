"""A backend that gives up on the way: what is finished stays, the rest says why."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest

import cellscribe as cs
from cellscribe.engine.backends.base import SlotPlan
from cellscribe.engine.cells import open_cells
from cellscribe.engine.errors import BackendError, RoomError
from cellscribe.engine.packaged import packaged_cells

TOKENS, CELLS = 32, 6


@pytest.fixture
def model(tiny_bundle: Path) -> cs.Model:
    return cs.load(tiny_bundle, threads=2, backend="onnxruntime-cpu")


@pytest.fixture
def cells() -> ad.AnnData:
    return ad.read_h5ad(packaged_cells())[:CELLS].copy()


class Failing:
    """A backend whose `verb` fails at its `at`-th call; everything else is the real one's."""

    def __init__(self, backend: Any, verb: str, at: int, cells_ahead: int, error: BaseException) -> None:
        self._backend, self._verb, self._left = backend, verb, at
        self._error, self.cells_ahead = error, cells_ahead
        self.threads: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def encode(self, batch: Any) -> Any:
        self.threads.add(threading.current_thread().name)
        self._count("encode")
        return self._backend.encode(batch)

    def open_slots(self, plan: SlotPlan) -> Any:
        slots, step = self._backend.open_slots(plan), None
        step = slots.step

        def counted(active: Any) -> Any:
            self._count("step")
            return step(active)

        slots.step = counted
        return slots

    def _count(self, verb: str) -> None:
        if verb == self._verb:
            self._left -= 1
            if self._left <= 0:
                raise self._error


def fail(model: cs.Model, verb: str, at: int, ahead: int = 0, error: BaseException | None = None) -> Failing:
    failing = Failing(model._backend, verb, at, ahead, error or BackendError("GPU 0 fell off the bus."))
    model._backend = failing  # type: ignore[assignment]
    return failing


def test_finished_texts_are_kept_and_the_others_say_why(model: cs.Model, cells: ad.AnnData) -> None:
    expected = model.describe(cells, max_new_tokens=TOKENS, copy=True)
    fail(model, "step", 2 * TOKENS)
    frame = model.describe(cells, max_new_tokens=TOKENS, batch_size=1)
    done = frame["status"] == "ok"
    assert 0 < done.sum() < CELLS
    assert frame["description"][done].tolist() == expected["description"][done].tolist()
    assert set(frame["status"][~done]) == {"failed: GPU 0 fell off the bus"}
    assert list(frame.index) == list(cells.obs_names)
    assert cells.obs["cellscribe_status"].tolist() == frame["status"].tolist()


def test_pools_are_kept_too(model: cs.Model, cells: ad.AnnData) -> None:
    cells.obs["cluster"] = ["a", "b", "c"] * 2
    fail(model, "step", 2 * TOKENS)
    frame = model.describe(cells, pool="cluster", max_new_tokens=TOKENS, batch_size=1)
    assert frame["status"].tolist()[0] == "ok"
    assert frame["status"].tolist()[-1] == "failed: GPU 0 fell off the bus"


def test_where_nothing_is_finished_the_error_is_raised(model: cs.Model, cells: ad.AnnData) -> None:
    fail(model, "step", 1)
    with pytest.raises(BackendError, match="fell off the bus"):
        model.describe(cells, max_new_tokens=TOKENS)
    assert "cellscribe" not in cells.uns


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a bug")])
def test_other_errors_end_the_run(model: cs.Model, cells: ad.AnnData, error: BaseException) -> None:
    fail(model, "step", 2 * TOKENS, 4, error)
    with pytest.raises(type(error)):
        model.describe(cells, max_new_tokens=TOKENS, batch_size=1)
    assert "cells ahead" not in [one.name for one in threading.enumerate()]


def test_embeddings_that_are_there_are_kept(model: cs.Model) -> None:
    cells = ad.read_h5ad(packaged_cells())[:20].copy()
    cells.X[2] = 0
    expected = model.embed(cells, copy=True)
    fail(model, "encode", 2)
    with open_cells(cells) as source:
        run = model.embed_cells(source)
    assert run.embeddings is not None
    done = np.isfinite(run.embeddings).all(1)
    assert done.tolist() == [i < 8 and i != 2 for i in range(20)]
    assert (run.embeddings[done] == expected[done]).all()
    statuses = [one.status for one in run.failed]
    assert "no counts" in statuses[0]
    assert set(statuses[1:]) == {"failed: GPU 0 fell off the bus"}


@pytest.mark.parametrize("ahead", [1, 5])
def test_cells_encoded_ahead_in_a_thread_give_the_same_texts(model: cs.Model, ahead: int) -> None:
    cells = ad.read_h5ad(packaged_cells())[:20].copy()
    cells.X[3] = 0
    expected = model.describe(cells, max_new_tokens=TOKENS, batch_size=3, copy=True)
    failing = fail(model, "nothing", 1, ahead)
    found = model.describe(cells, max_new_tokens=TOKENS, batch_size=3, copy=True)
    assert failing.threads == {"cells ahead"}
    for column in ("description", "status", "mean_logprob", "top_genes"):
        assert found[column].astype(str).tolist() == expected[column].astype(str).tolist()


def test_an_abandoned_stream_leaves_no_thread(model: cs.Model, cells: ad.AnnData) -> None:
    fail(model, "nothing", 1, 4)
    stream = model.stream(cells[0], max_new_tokens=TOKENS)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert "cells ahead" not in [one.name for one in threading.enumerate()]


def test_fewer_slots_are_used_where_only_fewer_fit(
    model: cs.Model, cells: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = model.describe(cells, max_new_tokens=TOKENS, copy=True)
    asked, opened = [], model._backend.open_slots

    def small(plan: SlotPlan) -> Any:
        asked.append(plan.num_slots)
        if plan.num_slots > 2:
            raise RoomError("H200 has 1 MB free and 5 slots need 2 MB; 2 would fit.", 2)
        return opened(plan)

    monkeypatch.setattr(model._backend, "open_slots", small)
    with open_cells(cells) as source:
        run = model.describe_cells(source, max_new_tokens=TOKENS, batch_size=5)
    assert asked == [5, 2]
    assert [one.text for one in run.descriptions] == expected["description"].tolist()
    assert run.notice == "H200 has 1 MB free and 5 slots need 2 MB; 2 would fit; went on with 2."


def test_no_slot_at_all_is_an_error(model: cs.Model, cells: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(plan: SlotPlan) -> Any:
        raise RoomError("not even one fits.")

    monkeypatch.setattr(model._backend, "open_slots", none)
    with pytest.raises(RoomError, match="not even one"):
        model.describe(cells, max_new_tokens=TOKENS)


def test_the_settings_name_the_backend_that_ran(model: cs.Model, cells: ad.AnnData, tiny_bundle: Path) -> None:
    model.describe(cells, max_new_tokens=TOKENS)
    assert cells.uns["cellscribe"]["backend"] == model.device
    assert "CPUExecutionProvider" in model.device
    assert model.backend_choice.name == "onnxruntime-cpu"
    with pytest.raises(cs.CellscribeError, match="backend is 'nonsense'"):
        cs.load(tiny_bundle, backend="nonsense")
