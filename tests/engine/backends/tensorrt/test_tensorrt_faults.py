"""A GPU that fails, or runs out of memory, in mid-run: finished texts stay, and the rest says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch
from fake_device import FakeDevice
from fake_plans import make_plan, open_fake

from cellscribe.engine.backends.base import Admission, SlotPlan
from cellscribe.engine.backends.tensorrt.faults import running
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.cells import open_cells
from cellscribe.engine.errors import BackendError, RoomError
from cellscribe.engine.output.run import Run
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.source_model import SourceModel
from cellscribe.engine.types import Sampling

TOKENS, CELLS, S = 32, 4, 61
FAULT = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later.\n"
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1 GiB free."
ERRORS = [
    (RuntimeError(FAULT), BackendError, r"failed \(CUDA error: an illegal memory access was encountered\); run `cell"),
    (torch.OutOfMemoryError(FULL), RoomError, r"ran out of memory \(CUDA out of memory\); choose a smaller --batch-"),
]


class FailingDevice(FakeDevice):
    """A device whose `verb` fails from its `at`-th call on, once it is armed."""

    def __init__(self, error: BaseException, verb: str, at: int = 1) -> None:
        super().__init__()
        self._error, self._verb, self._left, self.armed = error, verb, at, False

    def zeros(self, shape: Any, dtype: Any) -> Any:
        self._count("zeros")
        return super().zeros(shape, dtype)

    def upload(self, array: Any) -> Any:
        self._count("upload")
        return super().upload(array)

    def capture(self, program: Callable[[], None]) -> Callable[[], None]:
        replay = super().capture(program)

        def counted() -> None:
            self._count("replay")
            replay()

        return counted

    def fetch(self, tensors: Any) -> Any:
        self._count("fetch")
        wait = super().fetch(tensors)

        def counted() -> Any:
            self._count("wait")
            return wait()

        return counted

    def _count(self, verb: str) -> None:
        if self.armed and verb == self._verb:
            self._left -= 1
            if self._left <= 0:
                raise self._error


@pytest.fixture(scope="module")
def bundle(tiny_bundle_fp16: Path) -> Bundle:
    return open_bundle(tiny_bundle_fp16)


def describe(bundle: Bundle, plans: Path, device: FakeDevice) -> Run:
    cells = ad.read_h5ad(packaged_cells())[:CELLS].copy()
    genes = bundle.manifest.cells.num_genes + 1
    backend = open_fake(bundle, make_plan(bundle, plans, TOKENS, genes=genes), device=device)
    with open_cells(cells) as source:
        return SourceModel(bundle, backend=backend).describe_cells(source, max_new_tokens=TOKENS, batch_size=1)


@pytest.mark.parametrize(("error", "kind", "sentence"), ERRORS)
@pytest.mark.parametrize(
    ("verb", "at"), [("wait", 2 * TOKENS), ("replay", 2 * TOKENS), ("upload", 15), ("fetch", 2 * TOKENS)]
)
def test_finished_texts_are_kept_and_the_others_say_why(
    bundle: Bundle, tmp_path: Path, error: BaseException, kind: type[BackendError], sentence: str, verb: str, at: int
) -> None:
    expected = describe(bundle, tmp_path / "whole", FakeDevice())
    device = FailingDevice(error, verb, at)
    device.armed = True
    found = describe(bundle, tmp_path / "broken", device)
    done = [one.is_ok for one in found.descriptions]
    assert 0 < sum(done) < CELLS
    assert done == sorted(done, reverse=True)
    for one, other in zip(found.descriptions, expected.descriptions, strict=True):
        if one.is_ok:
            assert one.text == other.text
        else:
            assert one.status.startswith("failed: a device that is not there ")
            assert "\n" not in one.status


@pytest.mark.parametrize(("error", "kind", "sentence"), ERRORS)
@pytest.mark.parametrize("verb", ["wait", "replay", "upload", "fetch"])
def test_every_call_of_the_slots_says_it_in_one_sentence(
    bundle: Bundle, tmp_path: Path, error: BaseException, kind: type[BackendError], sentence: str, verb: str
) -> None:
    device = FailingDevice(error, verb)
    slots = open_fake(bundle, make_plan(bundle, tmp_path), device=device).open_slots(SlotPlan(2, S, 8, Sampling()))
    memory = np.zeros((S, 64), np.float16)
    calls: dict[str, tuple[Callable[[], Any], ...]] = {
        "replay": (lambda: slots.step(np.arange(1)),),
        "upload": (lambda: slots.admit([Admission(0, 0, memory, np.ones(S, bool))]), lambda: slots.force(np.ones(1))),
        "fetch": (lambda: slots.step(np.arange(1)), lambda: slots.logits(1)),
        "wait": (slots.step(np.arange(1)).wait, lambda: slots.logits(1)),
    }
    device.armed = True
    for call in calls[verb]:
        with pytest.raises(BackendError, match=f"^a device that is not there {sentence}") as caught:
            call()
        assert type(caught.value) is kind


@pytest.mark.parametrize("verb", ["zeros", "upload"])
def test_slots_that_cannot_be_laid_out_say_so(bundle: Bundle, tmp_path: Path, verb: str) -> None:
    plan = make_plan(bundle, tmp_path)
    for error, sentence in (
        (RuntimeError(FAULT), "failed .CUDA error"),
        (torch.OutOfMemoryError(FULL), "ran out of memory while 4 slots were laid out; half of them may fit"),
    ):
        device = FailingDevice(error, verb, 5)
        device.armed = True
        with pytest.raises(BackendError, match=sentence) as caught:
            open_fake(bundle, plan, device=device).open_slots(SlotPlan(4, S, 8, Sampling()))
        assert getattr(caught.value, "num_fitting", 2) == 2


def test_a_mistake_of_ours_is_not_blamed_on_the_gpu() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), running(torch, "GPU"):
        raise RuntimeError("shapes differ")
