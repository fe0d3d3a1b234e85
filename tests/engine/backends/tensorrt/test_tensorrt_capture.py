"""What outlives a captured step, what happens where it cannot be captured, and what is kept of compiled kernels."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_device import FakeDevice, RuleBrokenError
from fake_plans import make_plan, open_fake
from fake_tensorrt import FakeContext, FakeEngine

from cellscribe.engine.backends.base import Admission, SlotPlan
from cellscribe.engine.backends.tensorrt import TensorRTBackend
from cellscribe.engine.backends.tensorrt import device as devices
from cellscribe.engine.backends.tensorrt.device import CudaDevice
from cellscribe.engine.backends.tensorrt.homes import jit_file
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.errors import PlanError
from cellscribe.engine.types import Sampling

S, TOKENS = 61, 24
PLAN = SlotPlan(3, S, TOKENS, Sampling())


@pytest.fixture(scope="module")
def bundle(tiny_bundle_fp16: Path) -> Bundle:
    return open_bundle(tiny_bundle_fp16)


def tokens(slots: Any) -> list[list[int]]:
    memory = np.random.default_rng(0).normal(size=(3, S, 64)).astype(np.float16)
    (first,) = slots.admit([Admission(i, i, memory[i], np.ones(S, bool)) for i in range(3)]).wait()
    steps = [slots.step(np.arange(3)).wait()[0] for _ in range(4)]
    return [one.token_ids.tolist() for one in (first, *steps)]


def test_the_step_is_captured_once_and_its_context_lives_as_long_as_the_slots(bundle: Bundle, tmp_path: Path) -> None:
    device = FakeDevice()
    backend = open_fake(bundle, make_plan(bundle, tmp_path), device=device)
    slots = backend.open_slots(PLAN)
    gc.collect()
    tokens(slots)
    assert device.captures == 1
    assert (slots.remark, backend.remarks) == ("", ())
    replay = slots._replay
    assert replay is not None
    slots._step = None  # type: ignore[assignment]
    with pytest.raises(RuleBrokenError, match="whose context is gone"):
        replay()


@pytest.mark.parametrize("capturable", [True, False])
def test_slots_are_freed_when_nobody_holds_them(bundle: Bundle, tmp_path: Path, capturable: bool) -> None:
    """They take gigabytes: a cycle would keep them until the collector comes by."""
    device = FakeDevice()
    device.can_capture = capturable
    slots = open_fake(bundle, make_plan(bundle, tmp_path, product="rtx"), device=device).open_slots(PLAN)
    gc.collect()
    gc.disable()
    try:
        alive = weakref.ref(slots)
        del slots
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"can_capture": False}, "cannot be captured as a CUDA graph, so each step takes longer"),
        ({"fails_in_capture": True}, r"were not captured .*operation not permitted when stream is capturing"),
    ],
)
def test_where_steps_cannot_be_captured_texts_are_the_same_and_it_is_said(
    bundle: Bundle, tmp_path: Path, change: dict[str, bool], why: str
) -> None:
    plan = make_plan(bundle, tmp_path, product="rtx")
    expected = tokens(open_fake(bundle, plan).open_slots(PLAN))
    device = FakeDevice()
    vars(device).update(change)
    backend = open_fake(bundle, plan, device=device)
    assert tokens(backend.open_slots(PLAN)) == expected
    (remark,) = backend.remarks
    assert re.search(why, remark)


def test_a_cache_that_is_not_updated_in_place_is_refused(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeEngine, "get_aliased_input_tensor", lambda self, name: None)
    with pytest.raises(PlanError, match=r"does not update new_key\.0 in place"):
        open_fake(bundle, make_plan(bundle, tmp_path)).open_slots(PLAN)


def test_scratch_memory_that_tensorrt_refuses_is_an_error(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse = FakeContext.set_device_memory
    monkeypatch.setattr(FakeContext, "set_device_memory", lambda self, address, size: refuse(self, address, 1))
    with pytest.raises(PlanError, match=r"refuses scratch memory for .*\(the device memory is too small\)"):
        open_fake(bundle, make_plan(bundle, tmp_path)).open_slots(PLAN)


def batch_of(genes: int, cells: int) -> TokenBatch:
    rng = np.random.default_rng(genes)
    shape = (cells, genes)
    return TokenBatch(
        rows=np.arange(cells),
        cell_ids=tuple(map(str, range(cells))),
        genes=rng.integers(1, 50, shape),
        values=rng.random(shape, dtype=np.float32),
        mask=np.ones(shape, bool),
        columns=np.full(shape, -1),
        failures=(),
    )


def test_cells_of_any_length_and_number_run_the_encoder_in_few_shapes(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[int, ...]] = set()
    kept = FakeContext.set_input_shape

    def noted(self: FakeContext, name: str, shape: tuple[int, ...]) -> bool:
        seen.add(shape)
        return kept(self, name, shape)

    monkeypatch.setattr(FakeContext, "set_input_shape", noted)
    backend = open_fake(bundle, make_plan(bundle, tmp_path))
    short, alone = backend.encode(batch_of(20, 7)), backend.encode(batch_of(20, 1))
    assert short.memory.shape == (7, 20, 64)
    assert seen == {(4, S), (2, S), (1, S)}
    assert alone.host_memory().shape == (1, 20, 64)


def kernels(backend: TensorRTBackend) -> dict[str, bytes]:
    plan = backend.plan
    found = {name: jit_file(one.sha256) for name, one in plan.files.items()}
    return {name: path.read_bytes() for name, path in found.items() if path.is_file()}


def test_kernels_compiled_for_an_rtx_card_are_kept_in_the_users_cache(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plan = make_plan(bundle, tmp_path, product="rtx", version="1.7.1")
    before = sorted(path.name for path in plan.folder.iterdir())
    backend = open_fake(bundle, plan)
    backend.encode(batch_of(5, 1))
    assert kernels(backend) == {"encoder.plan": b"kernels"}
    backend.open_slots(PLAN)
    assert kernels(backend) == dict.fromkeys(plan.files, b"kernels")
    assert sorted(path.name for path in plan.folder.iterdir()) == before
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    tokens(open_fake(bundle, plan).open_slots(replace(PLAN, num_slots=3)))


def test_other_threads_do_not_spoil_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    @contextmanager
    def graph(made: object, **how: Any) -> Iterator[None]:
        seen.update(how)
        yield

    @contextmanager
    def stream(given: object) -> Iterator[None]:
        seen["stream"] = given
        yield

    replayed = SimpleNamespace(replay=lambda: seen.update(replayed=True))
    cuda = SimpleNamespace(
        is_available=lambda: True,
        Stream=lambda device: SimpleNamespace(synchronize=lambda: None),
        CUDAGraph=lambda: replayed if "stream" in seen else None,
        graph=graph,
        stream=stream,
    )
    torch = SimpleNamespace(cuda=cuda, device=lambda kind, index: (kind, index))
    monkeypatch.setattr(devices.importlib, "import_module", lambda name: torch)
    CudaDevice(1).capture(lambda: seen.update(run=True))()
    assert (seen["capture_error_mode"], seen["run"], seen["replayed"]) == ("thread_local", True, True)
