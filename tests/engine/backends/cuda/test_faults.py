from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from cellscribe.engine.backends.base import SlotPlan
from cellscribe.engine.backends.budget import budget
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.errors import BackendError, RoomError
from cellscribe.engine.types import Sampling
from cellscribe.kernels.library import KernelError

torch = pytest.importorskip("torch", reason="the CUDA backend needs torch")
from cellscribe.engine.backends.cuda.faults import require_room, running, slot_budget  # noqa: E402

CPU = SimpleNamespace(type="cpu")
PLAN = SlotPlan(64, 61, 32, Sampling())


@pytest.mark.parametrize(
    ("raised", "kind", "sentence"),
    [
        (
            torch.OutOfMemoryError("Tried to allocate 2 GiB. GPU 0 has a total of 1 GiB."),
            RoomError,
            r"ran out of memory \(Tried to allocate 2 GiB\); choose a smaller --batch-size",
        ),
        (
            KernelError("sample", 10001),
            BackendError,
            "the kernel sample failed: it is not built for these sizes on",
        ),
        (
            RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with ..."),
            BackendError,
            r"failed \(CUDA error: an illegal memory access was encountered\); run `cellscribe doctor`",
        ),
    ],
)
def test_errors_of_the_device_become_sentences(raised: Exception, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence), running(torch, CPU):
        raise raised


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="a shape"), running(torch, CPU):
        raise RuntimeError("a shape that does not fit")


def test_too_many_slots_are_refused_with_the_bytes_and_the_slots_that_would_fit(tiny_bundle: Path) -> None:
    manifest = open_bundle(tiny_bundle).manifest
    needed = slot_budget(manifest, PLAN, 16)
    free = needed.fixed + 10 * needed.slot.total + 1

    class Card:
        type = "cuda"

    cuda = SimpleNamespace(
        mem_get_info=lambda _: (free - 5, 1 << 40),
        memory_reserved=lambda _: 15,
        memory_allocated=lambda _: 10,  # 5 bytes that torch holds and does not use
        get_device_name=lambda _: "a card",
    )
    with pytest.raises(RoomError, match="10 would fit") as caught:
        require_room(SimpleNamespace(cuda=cuda), Card(), manifest, PLAN, 16)
    assert caught.value.num_fitting == 10
    require_room(SimpleNamespace(cuda=cuda), Card(), manifest, SlotPlan(10, 61, 32, Sampling()), 16)


def test_the_slots_are_counted_in_half_precision_without_the_weights(tiny_bundle: Path) -> None:
    manifest = open_bundle(tiny_bundle).manifest
    assert manifest.precision == "fp32"
    counted = slot_budget(manifest, PLAN, 16)
    assert counted.weights == 0
    assert counted.slot.caches * 2 == budget(manifest, PLAN).slot.caches
    assert counted.fixed > 0
