"""Checking a backend that is not the CPU: here the GPU one, run on the CPU provider."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cellscribe.engine.backends.base import Encoded, SlotPlan
from cellscribe.engine.backends.choose import Choice, Passed
from cellscribe.engine.backends.device_slots import DeviceSlots
from cellscribe.engine.backends.onnxruntime_cpu import OnnxRuntimeCpu
from cellscribe.engine.backends.onnxruntime_cuda import OnnxRuntimeCuda
from cellscribe.engine.backends.sessions import CPU
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.cells import TokenBatch, open_cells
from cellscribe.engine.errors import InputError, RoomError
from cellscribe.engine.measure import NUM_CELLS, NUM_TOKENS, SLOT_COUNTS, expected_of, real_cells, time_backend
from cellscribe.engine.packaged import packaged_bundle, packaged_cells
from cellscribe.engine.source_model import SourceModel
from cellscribe.engine.verify import (
    TOLERANCES,
    compare,
    examine_backend,
    measure_parity,
    parity_failures,
    teacher_forced,
)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle(packaged_bundle())


@pytest.fixture
def backend(bundle: Bundle) -> OnnxRuntimeCuda:
    return OnnxRuntimeCuda(bundle, CPU, threads=2)


def test_another_backend_is_compared_with_torch_and_the_cpu_and_timed(bundle: Bundle, backend: OnnxRuntimeCuda) -> None:
    choice = Choice(backend, "onnxruntime-cuda", (Passed("tensorrt", "no plan."), Passed("cuda", "no plan.")))
    report = examine_backend(bundle, choice, threads=2)
    assert report.passed, report.lines()
    assert report.against_cpu is not None
    assert (report.against_cpu.cells, report.against_cpu.tokens) == (NUM_CELLS, NUM_CELLS * NUM_TOKENS)
    assert report.against_cpu.source == packaged_cells().name
    assert [one.slots for one in report.timings] == [0, *SLOT_COUNTS]
    assert all(0 < one.ms_per_cell < 1e5 for one in report.timings)
    assert "passed over tensorrt, cuda: no plan." in report.lines()
    facts = dict(report.facts)
    assert bundle.hash in facts["bundle"]
    assert facts["backend"].startswith("onnxruntime-cuda: ")
    sent = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert sent["passed"] is True
    assert sent["timings"][1]["slots"] == 1


def test_a_backend_that_computes_something_else_fails(
    bundle: Bundle, backend: OnnxRuntimeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = DeviceSlots.logits
    monkeypatch.setattr(DeviceSlots, "logits", lambda self, count: right(self, count)[:, ::-1])
    report = examine_backend(bundle, Choice(backend, "onnxruntime-cuda"), threads=2)
    assert not report.passed
    assert any(one.startswith("compared with ONNX Runtime on the CPU: logits_max_error is") for one in report.failures)
    assert any("choose the same token as ONNX Runtime" in one for one in report.failures)


def test_a_backend_is_held_to_the_precision_it_computes_in(
    bundle: Bundle, backend: OnnxRuntimeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend in fp16, of a bundle in fp32: its differences are those of fp16."""
    assert bundle.manifest.precision == "fp32"
    right = backend.encode

    def rounded(batch: TokenBatch) -> Encoded:
        found = right(batch)
        memory = found.host_memory().astype(np.float16).astype(np.float32)
        return Encoded(memory + np.float32(1e-3), found.cell)

    monkeypatch.setattr(backend, "encode", rounded)
    assert parity_failures(measure_parity(bundle, backend, "x"))
    monkeypatch.setattr(backend, "precision", "fp16", raising=False)
    parity = measure_parity(bundle, backend, "x")
    assert (parity.tolerance, parity_failures(parity)) == (TOLERANCES["fp16"], ())
    model = SourceModel(bundle, backend=backend)
    with open_cells(packaged_cells()) as source:
        run = model.embed_cells(source, rows=np.arange(2))
    assert run.settings["precision"] == "fp16"


def test_more_cells_than_slots_are_checked_a_few_at_a_time(
    bundle: Bundle, backend: OnnxRuntimeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, opened = measure_parity(bundle, backend, "x"), backend.open_slots
    sizes: list[int] = []

    def small(plan: SlotPlan) -> DeviceSlots:
        if plan.num_slots > 3:
            raise RoomError("3 would fit.", 3)
        sizes.append(plan.num_slots)
        return opened(plan)

    monkeypatch.setattr(backend, "open_slots", small)
    few = measure_parity(bundle, backend, "x")
    assert sum(sizes) == few.cells > 3
    assert few.tokens == whole.tokens
    assert few.logits_max_error == pytest.approx(whole.logits_max_error, abs=1e-5)
    monkeypatch.setattr(backend, "open_slots", lambda plan: (_ for _ in ()).throw(RoomError("none fits.")))
    with pytest.raises(RoomError, match="none fits"):
        measure_parity(bundle, backend, "x")


def test_the_cpu_is_timed_only_when_asked(bundle: Bundle) -> None:
    choice = Choice(OnnxRuntimeCpu(bundle, 2), "onnxruntime-cpu")
    assert examine_backend(bundle, choice).timings == ()
    report = examine_backend(bundle, choice, is_timed=True)
    assert len(report.timings) == 1 + len(SLOT_COUNTS)
    assert report.against_cpu is None


def test_expected_tokens_are_the_greedy_ones(bundle: Bundle) -> None:
    cpu = OnnxRuntimeCpu(bundle, 2)
    batch, _ = real_cells(bundle, None)
    assert batch is not None
    expected = expected_of(bundle, cpu, batch)
    assert expected.tokens is not None
    assert expected.logits is not None
    again = teacher_forced(bundle, cpu, cpu.encode(batch).memory, batch.mask, expected.tokens)
    assert (again.argmax(-1) == expected.tokens).all()
    parity = compare(bundle, cpu, expected, "itself")
    assert parity_failures(parity) == ()
    assert parity.logits_max_error == 0.0


def test_slots_that_do_not_fit_are_said_and_the_rest_is_timed(
    bundle: Bundle, backend: OnnxRuntimeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = backend.open_slots

    def small(plan: SlotPlan) -> DeviceSlots:
        if plan.num_slots > 8:
            raise RoomError("8 would fit.", 8)
        return opened(plan)

    monkeypatch.setattr(backend, "open_slots", small)
    batch, _ = real_cells(bundle, None)
    assert batch is not None
    *_, eight, many = time_backend(bundle, backend, batch)
    assert np.isfinite(eight.tokens_per_second)
    assert many.line() == "32 slots: 8 would fit."


def test_cells_that_do_not_suit_are_refused_where_they_were_named(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import anndata as ad

    strange = tmp_path / "strange.h5ad"
    cells = ad.read_h5ad(packaged_cells())[:9].copy()
    cells.raw = None
    cells.var_names = [f"strange{i}" for i in range(cells.n_vars)]
    cells.write_h5ad(strange)
    with pytest.raises(InputError):
        real_cells(bundle, strange)
    monkeypatch.setattr("cellscribe.engine.measure.packaged_cells", lambda: strange)
    batch, why = real_cells(bundle, None)
    assert batch is None
    assert "give others with --cells" in why
