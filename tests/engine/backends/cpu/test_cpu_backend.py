from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cellscribe.engine.backends.base import NOT_FINITE, Admission, SlotPlan
from cellscribe.engine.backends.cpu import CpuBackend, cpu_problem
from cellscribe.engine.backends.onnxruntime_cpu import OnnxRuntimeCpu
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.decode.scheduler import Request, Scheduler, Text
from cellscribe.engine.errors import BackendError
from cellscribe.engine.types import Sampling
from cellscribe.kernels.cpu_library import PATH_VARIABLE, SET_VARIABLE, instruction_sets

S, CELLS = 61, 7
LENGTHS = np.array([61, 61, 30, 1, 61, 12, 0])
BUNDLES = ["tiny_bundle", "tiny_bundle_materialised", "tiny_bundle_fp16", "tiny_bundle_int8", "tiny_bundle_int4"]
# Largest difference of log-probabilities from ONNX Runtime: other sums, fp16 sums there, activations of 8 bits.
TOLERANCE = {"fp32": 2e-5, "fp16": 2e-2, "int8": 0.25, "int4": 0.25}
SETS = instruction_sets() or ("none",)

pytestmark = pytest.mark.usefixtures("native_library")


@pytest.fixture(scope="module", params=BUNDLES)
def folder(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.fixture(scope="module", params=SETS)
def backend(request: pytest.FixtureRequest, folder: Path) -> CpuBackend:
    return CpuBackend(open_bundle(folder), threads=2, instruction_set=request.param)


def memories(width: int) -> tuple[np.ndarray, np.ndarray]:
    memory = np.random.default_rng(0).normal(size=(CELLS, S, width)).astype(np.float32)
    return memory, np.arange(S)[None] < LENGTHS[:, None]


def write(
    backend: CpuBackend, order: list[int], num_slots: int, sampling: Sampling, tokens: int = 24
) -> dict[int, Text]:
    memory, mask = memories(backend.bundle.manifest.encoder.d_model)
    slots = backend.open_slots(SlotPlan(num_slots, S, tokens, sampling))
    scheduler = Scheduler(slots, num_slots, eos_ids=frozenset([2]), max_new_tokens=tokens)
    requests = (Request(i, 1000 + i, memory[i], mask[i]) for i in order)
    return {e.text.request.index: e.text for e in scheduler.run(requests) if e.text.is_finished}


def test_steps_are_those_of_onnx_runtime(backend: CpuBackend) -> None:
    memory, mask = memories(backend.bundle.manifest.encoder.d_model)
    plan = SlotPlan(CELLS, S, 12, Sampling(), keep_attention=True, forced=True)
    theirs = OnnxRuntimeCpu(backend.bundle, threads=2).open_slots(plan)
    ours = backend.open_slots(plan)
    precision = backend.bundle.manifest.precision
    admissions = [Admission(i, i, memory[i], mask[i]) for i in range(CELLS)]
    expected, found = theirs.admit(admissions).wait()[0], ours.admit(admissions).wait()[0]
    for step in range(11):
        a, b = theirs.logits(CELLS), ours.logits(CELLS)
        tolerance = TOLERANCE[precision]
        a = a - np.log(np.exp(a - a.max(-1, keepdims=True)).sum(-1, keepdims=True)) - a.max(-1, keepdims=True)
        b = b - np.log(np.exp(b - b.max(-1, keepdims=True)).sum(-1, keepdims=True)) - b.max(-1, keepdims=True)
        assert np.abs(a - b).max() < tolerance, step
        assert np.abs(expected.evidence - found.evidence).max() < tolerance / 4
        assert found.attention is not None
        assert found.attention.shape == expected.attention.shape
        assert np.abs(expected.attention - found.attention).max() < tolerance
        forced = np.random.default_rng(step).integers(3, 600, CELLS)
        theirs.force(forced)
        ours.force(forced)
        active = np.arange(CELLS)
        expected, found = theirs.step(active).wait()[0], ours.step(active).wait()[0]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.9, 0.7, 4)])
def test_a_text_is_the_same_bits_for_any_slots_and_order(folder: Path, sampling: Sampling) -> None:
    backend = CpuBackend(open_bundle(folder), threads=2)
    expected = write(backend, list(range(CELLS)), 1, sampling)
    assert len({tuple(t.token_ids) for t in expected.values()}) == CELLS
    other = CpuBackend(open_bundle(folder), threads=3)
    for chosen, num_slots, order in (
        (backend, 2, [6, 5, 4, 3, 2, 1, 0]),
        (backend, 3, [2, 0, 4, 6, 1, 3, 5]),
        (other, 7, list(range(CELLS))),
        (backend, 12, [3, 1]),
    ):
        found = write(chosen, order, num_slots, sampling)
        for i in order:
            assert found[i].token_ids == expected[i].token_ids
            assert found[i].logprobs == expected[i].logprobs
            assert (found[i].evidence == expected[i].evidence).all()


def test_padding_of_the_memory_is_never_read(folder: Path) -> None:
    backend = CpuBackend(open_bundle(folder), threads=2)
    memory, mask = memories(backend.bundle.manifest.encoder.d_model)
    seen = []
    for fill in (0.0, np.nan):
        given = np.where(mask[..., None], memory, np.float32(fill))
        slots = backend.open_slots(SlotPlan(CELLS, S, 4, Sampling()))
        slots.admit([Admission(i, i, given[i], mask[i]) for i in range(CELLS)]).wait()
        slots.step(np.arange(CELLS)).wait()
        seen.append(slots.logits(CELLS).copy())
    assert np.isfinite(seen[0]).all()
    assert (seen[0] == seen[1]).all()


def test_a_cell_that_is_not_finite_fails_alone(folder: Path) -> None:
    backend = CpuBackend(open_bundle(folder), threads=2)
    memory, mask = memories(backend.bundle.manifest.encoder.d_model)
    spoilt = memory[0].copy()
    spoilt[3] = np.nan
    slots = backend.open_slots(SlotPlan(2, S, 8, Sampling()))
    chosen = slots.admit([Admission(0, 0, spoilt, mask[0]), Admission(1, 1, memory[1], mask[1])]).wait()[0]
    assert chosen.token_ids[0] == NOT_FINITE
    assert chosen.token_ids[1] != NOT_FINITE
    again = slots.admit([Admission(0, 1, memory[1], mask[1])]).wait()[0]
    assert again.token_ids[0] == chosen.token_ids[1]
    assert again.logprobs[0] == chosen.logprobs[1]


def test_several_tokens_at_once_are_single_steps(folder: Path) -> None:
    """What speculation rests on: rows of one slot in one pass give the bits that they give one by one."""
    backend = CpuBackend(open_bundle(folder), threads=2)
    memory, mask = memories(backend.bundle.manifest.encoder.d_model)
    plan = SlotPlan(1, S, 8, Sampling())
    tokens = np.array([5, 17, 31, 99])
    slots = backend.open_slots(plan)
    slots.admit([Admission(0, 0, memory[0], mask[0])]).wait()
    singles = []
    for token in tokens:
        slots.force(np.array([token]))
        slots.step(np.array([0])).wait()
        singles.append(slots.logits(1)[0].copy())
    slots.admit([Admission(0, 0, memory[0], mask[0])]).wait()
    start = len(backend.bundle.manifest.prompt.token_ids)
    logits, _, _ = slots._passes.run(
        backend.decoder.embed(tokens),
        np.zeros(4, np.int64),
        start + np.arange(4),
        layers=(0, backend.bundle.manifest.decoder.n_layers),
        chosen=np.arange(4),
    )
    assert (logits == np.array(singles)).all()


def test_capacity_does_not_matter(folder: Path) -> None:
    backend = CpuBackend(open_bundle(folder), threads=2)
    short, long = (write(backend, [0, 1, 2], 3, Sampling(), tokens) for tokens in (5, 60))
    for i in range(3):
        assert short[i].token_ids == long[i].token_ids[:5]
        assert short[i].logprobs == long[i].logprobs[:5]


def test_device_names_what_runs(backend: CpuBackend) -> None:
    assert "native" in backend.device
    assert "2 threads" in backend.device


def test_without_the_library_it_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATH_VARIABLE, "")
    assert "C++ compiler" in cpu_problem()
    with pytest.raises(BackendError, match=r"cannot run here: its library is not there; install cellscribe"):
        CpuBackend(open_bundle(folder))


def test_without_the_instructions_it_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SET_VARIABLE, "sse2")
    with pytest.raises(BackendError, match="this CPU lacks AVX2"):
        CpuBackend(open_bundle(folder))
