"""What the native backend says where it cannot run, or has no room."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellscribe.engine.backends.base import SlotPlan
from cellscribe.engine.backends.cpu import CpuBackend, backend, cpu_problem
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.errors import RoomError
from cellscribe.engine.measure import real_cells
from cellscribe.engine.packaged import packaged_bundle
from cellscribe.engine.types import Sampling
from cellscribe.kernels.cpu_library import PATH_VARIABLE


def test_another_processor_is_not_sent_for_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATH_VARIABLE, "")
    for found, said in (("aarch64", "aarch64"), ("", "unknown")):
        monkeypatch.setattr(backend.platform, "machine", lambda name=found: name)
        assert cpu_problem() == f"it is written for x86-64 and this CPU is {said}."
    monkeypatch.setattr(backend.platform, "machine", lambda: "AMD64")
    assert "C++ compiler" in cpu_problem()


def test_too_little_memory_is_one_sentence(monkeypatch: pytest.MonkeyPatch, native_library: None) -> None:
    def full(*_: object) -> None:
        raise MemoryError("no room for a weight of 8 x 8")

    opened = CpuBackend(open_bundle(packaged_bundle()), threads=1)
    batch, _ = real_cells(opened.bundle, None, 1)
    assert batch is not None
    monkeypatch.setattr(backend, "load_decoder", full)
    with pytest.raises(RoomError, match="the CPU has too little free memory for the weights of the decoder; free some"):
        assert opened.decoder
    monkeypatch.setattr(opened.encoder, "encode", full)
    with pytest.raises(RoomError, match="too little free memory for a batch of cells"):
        opened.encode(batch)


def test_more_slots_than_memory_holds_is_a_sentence(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "available_memory", lambda: 10_000)
    opened = CpuBackend(open_bundle(tiny_bundle), threads=1)
    with pytest.raises(RoomError, match=r"^64 slots need \d+\.\d GB and 0\.0 GB are free; choose a smaller --batch"):
        opened.open_slots(SlotPlan(64, 61, 8, Sampling()))


@pytest.mark.parametrize("name", ["tiny_bundle", "tiny_bundle_materialised", "tiny_bundle_int8", "tiny_bundle_int4"])
def test_the_room_of_a_slot_is_what_the_library_takes(name: str, request: pytest.FixtureRequest) -> None:
    opened = CpuBackend(open_bundle(request.getfixturevalue(name)), threads=1)
    manifest = opened.bundle.manifest
    assert manifest.decoder is not None
    assert manifest.cross_attention is not None
    assert manifest.prompt is not None
    slots = opened.open_slots(SlotPlan(3, 61, 8, Sampling()))
    each = backend.slot_bytes(manifest.decoder, len(manifest.prompt.token_ids) + 8)
    each += backend.attended_bytes(manifest.cross_attention, manifest.decoder, opened.decoder.memory_kind, 61)
    assert slots.bytes == 4 * each  # one more holds the prompt


def test_as_many_slots_as_fit_are_named(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = CpuBackend(open_bundle(tiny_bundle), threads=1)
    each = opened.open_slots(SlotPlan(1, 61, 8, Sampling())).bytes // 2
    monkeypatch.setattr(backend, "available_memory", lambda: 6 * each + 1)
    with pytest.raises(RoomError) as caught:
        opened.open_slots(SlotPlan(64, 61, 8, Sampling()))
    assert caught.value.num_fitting == 5
    opened.open_slots(SlotPlan(5, 61, 8, Sampling()))
