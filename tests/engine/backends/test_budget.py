from __future__ import annotations

from dataclasses import replace

import pytest

from cellscribe.engine.backends.base import SlotPlan
from cellscribe.engine.backends.budget import budget, check_room, gigabytes
from cellscribe.engine.bundle.manifest import FileRecord, Manifest, PromptRecord
from cellscribe.engine.bundle.shapes import CrossShape, DecoderShape, EncoderShape
from cellscribe.engine.cells.spec import CellInput
from cellscribe.engine.errors import BundleError, RoomError
from cellscribe.engine.types import Sampling

# 3 layers of 2 key/value heads of width 8; a prompt of 4; V = 100; 2 cross layers of 6 heads over memories of width 16.
MANIFEST = Manifest(
    name="hand-made",
    family="lingocell",
    tasks=("describe",),
    precision="fp16",
    encoder=EncoderShape(d_model=16, n_layers=1, n_heads=1, d_ffn=1),
    cells=CellInput(layout="fixed", selection="list", num_genes=9),
    decoder=DecoderShape(100, 48, 3, 1, 6, 2, 8, 1, 64),
    cross_attention=CrossShape("latent", 2, 6, 3, 8, 16, False),
    prompt=PromptRecord("p", (1, 2, 3, 4), (2,)),
    files={
        "encoder.onnx": FileRecord(100, ""),
        "weights.data": FileRecord(900, ""),
        "tokenizer.json": FileRecord(10**9, ""),
    },
)
PLAN = SlotPlan(num_slots=5, num_genes=10, max_new_tokens=6, sampling=Sampling())


def test_the_bytes_of_a_slot_are_those_of_its_arrays() -> None:
    slot = budget(MANIFEST, PLAN).slot
    assert slot.caches == 2 * 3 * 2 * (4 + 6) * 8 * 2 == 1920
    assert slot.attended == 10 * 16 * 2 == 320
    assert slot.masks == 10 + 10
    assert slot.choice == 4 * 100 + 16
    assert slot.evidence == 40
    assert slot.total == 1920 + 320 + 20 + 416 + 40


def test_precision_form_and_attention_change_what_they_should() -> None:
    whole = budget(replace(MANIFEST, precision="fp32"), PLAN).slot
    assert (whole.caches, whole.attended, whole.choice) == (3840, 640, 416)
    assert MANIFEST.cross_attention is not None
    cross = replace(MANIFEST.cross_attention, form="materialised")
    assert budget(replace(MANIFEST, cross_attention=cross), PLAN).slot.attended == 2 * 2 * 3 * 10 * 8 * 2
    assert budget(MANIFEST, replace(PLAN, keep_attention=True)).slot.evidence == 40 + 4 * 2 * 6 * 10


def test_weights_are_the_graphs_and_their_data_and_waiting_cells_count() -> None:
    found = budget(MANIFEST, PLAN, cells_ahead=3)
    assert (found.weights, found.fixed) == (1000, 3 * 320)
    assert found.total == 1000 + 960 + 5 * 2716
    assert budget(MANIFEST, PLAN, with_weights=False).total == 5 * 2716


def test_what_does_not_fit_says_how_much_it_needs_and_what_would() -> None:
    needed = budget(MANIFEST, PLAN)
    check_room(needed.total, needed, "H200")
    with pytest.raises(RoomError) as caught:
        check_room(1000 + 3 * 2716 + 2715, needed, "H200")
    assert caught.value.num_fitting == 3
    said = str(caught.value)
    assert "H200 has 0.0 MB free and 5 slots need 0.0 MB" in said
    assert "3 would fit, so choose --batch-size 3 (batch_size=3) or less." in said
    with pytest.raises(RoomError, match="not even one fits") as none:
        check_room(999, needed, "H200")
    assert none.value.num_fitting == 0


def test_a_bundle_without_a_decoder_has_no_slots() -> None:
    with pytest.raises(BundleError, match="cannot describe"):
        budget(replace(MANIFEST, decoder=None), PLAN)


def test_bytes_are_written_to_be_compared() -> None:
    assert [gigabytes(n) for n in (2_340_000_000, 12_340_000)] == ["2.34 GB", "12.3 MB"]
