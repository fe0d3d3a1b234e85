"""The latent cross-attention kernel against its NumPy reference: in the emulator everywhere, on a GPU where one is."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace

import numpy as np
import pytest

from cellscribe.kernels.parameters.latent_cross import LatentCross
from cellscribe.kernels.reference.latent_cross import latent_cross_attention

BAD_SHAPE, SMALL_WORKSPACE = 10001, 10002


@dataclass(frozen=True)
class Case:
    """Sizes as in the header; `lengths` and `holes` (share of masked rows) choose what is attended to."""

    slots: int
    heads: int
    tokens: int
    genes: int
    width: int
    lengths: tuple[int, ...] = ()
    holes: float = 0.0
    first_token: int | None = 0  # None: no weights asked for
    add: bool = False
    num_blocks: int = 0
    spread: float = 1.0


CASES = {
    "one gene": Case(1, 1, 1, 1, 64),
    "demo": Case(3, 4, 1, 257, 64),
    "demo, prompt": Case(2, 4, 9, 61, 64, first_token=8),
    "ragged": Case(4, 8, 1, 77, 128, lengths=(77, 1, 0, 33)),
    "mask with holes": Case(2, 12, 2, 90, 128, holes=0.4),
    "ragged with holes": Case(3, 5, 1, 70, 64, lengths=(70, 64, 9), holes=0.5),
    "256 wide": Case(2, 32, 1, 65, 256, add=True),
    "full width": Case(2, 32, 1, 150, 512, lengths=(150, 97)),
    "full width, two tokens": Case(1, 32, 2, 64, 512, first_token=1),
    "more heads than a tile": Case(2, 40, 1, 50, 64),
    "no weights": Case(2, 32, 1, 70, 512, first_token=None, num_blocks=2),
    "an empty slot that one block holds": Case(2, 8, 1, 40, 64, lengths=(40, 0), num_blocks=1),
    "one block": Case(3, 8, 3, 40, 64, num_blocks=1),
    "a block an item": Case(2, 8, 1, 300, 64, num_blocks=64),
    "peaked": Case(2, 8, 1, 129, 64, spread=12.0),
    "2048 genes, 8 tokens": Case(1, 32, 8, 2048, 512, lengths=(2047,), holes=0.3),
    "512 slots": Case(512, 4, 1, 33, 64, holes=0.3),
    "7 tokens over two tiles of heads": Case(2, 33, 7, 2047, 256, lengths=(2047, 1), first_token=3),
    "huge scores": Case(2, 8, 1, 300, 64, spread=3000.0),
}
# Sizes of real runs, for a GPU.
LARGE = {
    "512 slots of lingocell-1.1b": Case(512, 32, 1, 1201, 512, lengths=(1201,) * 511 + (17,)),
    "512 slots, 2048 genes": Case(512, 32, 1, 2048, 512, holes=0.1),
    "96 slots, 8 tokens": Case(96, 32, 8, 1201, 512, first_token=7),
}


@dataclass
class Result:
    out: np.ndarray
    mass: np.ndarray
    weights: np.ndarray
    code: int


def inputs(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    query = rng.normal(size=(case.slots, case.heads, case.tokens, case.width)) * case.spread / np.sqrt(case.width)
    memory = rng.normal(size=(case.slots, case.genes, case.width)).astype(np.float16)
    attended = np.ones((case.slots, case.genes), bool)
    if case.lengths:
        attended &= np.arange(case.genes) < np.array(case.lengths)[:, None]
    attended &= rng.random(attended.shape) >= case.holes
    memory[~attended] = np.nan
    return query.astype(np.float16), memory, attended


def run(placing, library: ctypes.CDLL, case: Case, given: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Result:
    query, memory, attended = given
    first = case.first_token or 0
    scored = case.first_token is not None
    shape = (case.slots, case.heads, case.tokens - first, case.genes)
    arrays = {
        # token-major in memory, to see that the strides are used
        "query": np.ascontiguousarray(query.transpose(0, 2, 1, 3)),
        "memory": memory,
        "mask": attended.astype(np.uint8) if case.holes or not case.lengths else None,
        "lengths": np.array(case.lengths, np.int32) if case.lengths else None,
        "out": np.full((case.slots, case.heads, case.tokens, case.width), np.nan, np.float16),
        "mass": np.full((case.slots, case.tokens - first, case.genes), 2.0 if case.add else np.nan, np.float32),
        "weights": np.full(shape, np.nan, np.float32),
    }
    if not scored:
        arrays |= {"mass": None, "weights": None}
    on = {name: placing.place(array) for name, array in arrays.items() if array is not None}
    p = LatentCross(
        num_slots=case.slots, num_heads=case.heads, num_tokens=case.tokens, num_genes=case.genes, width=case.width,
        scale=1.0, query_slot=query[0].size, query_head=case.width, query_token=case.heads * case.width,
        memory_slot=memory[0].size, mask_slot=case.genes,
        out_slot=query[0].size, out_head=case.tokens * case.width, out_token=case.width,
        mass_slot=shape[2] * case.genes, mass_token=case.genes, mass_scale=0.5, mass_add=case.add,
        weights_slot=shape[1] * shape[2] * case.genes, weights_head=shape[2] * case.genes, weights_token=case.genes,
        first_token=first, num_blocks=case.num_blocks,
        **{name: placing.pointer(one) for name, one in on.items()},
    )  # fmt: skip
    size = library.cellscribe_latent_cross_workspace
    size.restype = ctypes.c_int64
    workspace = placing.place(np.full(max(size(ctypes.byref(p)), 1), 0xFF, np.uint8))
    p.workspace, p.workspace_bytes = placing.pointer(workspace), size(ctypes.byref(p))
    code = library.cellscribe_latent_cross(ctypes.byref(p), None)
    nothing = np.zeros(0, np.float32)
    found = {name: placing.fetch(on[name]) if name in on else nothing for name in ("out", "mass", "weights")}
    return Result(**found, code=code)


def check(placing, library: ctypes.CDLL, case: Case) -> None:
    given = inputs(case)
    mixed, weights = latent_cross_attention(*given)
    found = run(placing, library, case, given)
    assert found.code == 0
    error = np.abs(found.out - mixed)
    assert error.max() < 4e-3 * max(1.0, np.abs(mixed).max())
    assert np.quantile(error, 0.99) < 1e-3 * max(1.0, np.abs(mixed).max())
    rows = np.linalg.norm(mixed, axis=-1) > 0
    cosine = (found.out * mixed).sum(-1)[rows] / np.linalg.norm(mixed, axis=-1)[rows]
    assert (cosine / np.linalg.norm(found.out.astype(np.float64), axis=-1)[rows]).min() > 0.99999
    assert not found.out[~rows].any()
    if case.first_token is not None:
        wanted = weights[:, :, case.first_token :]
        assert np.abs(found.weights - wanted).max() < 1e-3 * wanted.max()
        start = 2.0 if case.add else 0.0
        assert np.abs(found.mass - (start + 0.5 * wanted.sum(1))).max() < 1e-3 * max(wanted.sum(1).max(), 1.0)
    again = run(placing, library, case, given)
    for name in ("out", "mass", "weights"):
        assert getattr(again, name).tobytes() == getattr(found, name).tobytes()


@pytest.mark.parametrize("name", CASES)
def test_the_emulated_kernel_equals_the_reference(placing_emulated, emulated: ctypes.CDLL, name: str) -> None:
    check(placing_emulated, emulated, CASES[name])


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_the_kernel_equals_the_reference(placing_device, device_library: ctypes.CDLL, name: str) -> None:
    check(placing_device, device_library, CASES[name])


@pytest.mark.gpu
@pytest.mark.parametrize("name", LARGE)
def test_the_kernel_equals_the_reference_at_real_sizes(placing_device, device_library: ctypes.CDLL, name: str) -> None:
    check(placing_device, device_library, LARGE[name])


@pytest.mark.parametrize("name", ["256 wide", "full width"])
def test_the_build_for_small_shared_memory(
    placing_emulated, emulated: ctypes.CDLL, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELLSCRIBE_EMULATOR_SHARED", str(99 * 1024))
    check(placing_emulated, emulated, CASES[name])


@pytest.mark.parametrize("name", ["demo", "full width", "one block", "ragged with holes"])
def test_the_order_of_threads_and_blocks_plays_no_part(
    placing_emulated, emulated: ctypes.CDLL, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, given = CASES[name], inputs(CASES[name])
    forward = run(placing_emulated, emulated, case, given)
    monkeypatch.setenv("CELLSCRIBE_EMULATOR_REVERSED", "1")
    backward = run(placing_emulated, emulated, case, given)
    for field in ("out", "mass", "weights"):
        assert getattr(backward, field).tobytes() == getattr(forward, field).tobytes()


def test_a_memory_that_is_not_finite_spoils_its_slot_alone(placing_emulated, emulated: ctypes.CDLL) -> None:
    case = Case(3, 8, 1, 70, 64)
    query, memory, attended = inputs(case)
    clean = run(placing_emulated, emulated, case, (query, memory, attended))
    memory[1, 40, 3] = np.nan
    spoilt = run(placing_emulated, emulated, case, (query, memory, attended))
    assert np.isnan(spoilt.out[1]).all()
    assert np.isnan(spoilt.mass[1]).any()
    for slot in (0, 2):
        assert spoilt.out[slot].tobytes() == clean.out[slot].tobytes()


@pytest.mark.parametrize(
    "change", [{"width": 96}, {"width": 1024}, {"heads": 65}, {"tokens": 0}, {"genes": 0}, {"first_token": 1}]
)
def test_sizes_it_is_not_built_for_are_refused(placing_emulated, emulated: ctypes.CDLL, change: dict[str, int]) -> None:
    case = Case(1, 4, 1, 8, 64)
    p = parameters(replace(case, **change))
    assert emulated.cellscribe_latent_cross(ctypes.byref(p), None) == BAD_SHAPE


def test_a_small_workspace_is_refused(placing_emulated, emulated: ctypes.CDLL) -> None:
    p = parameters(Case(1, 4, 1, 8, 64))
    size = emulated.cellscribe_latent_cross_workspace
    size.restype = ctypes.c_int64
    p.workspace_bytes = size(ctypes.byref(p)) - 1
    assert emulated.cellscribe_latent_cross(ctypes.byref(p), None) == SMALL_WORKSPACE


@pytest.mark.parametrize("field", ["query", "memory", "out", "workspace"])
def test_arrays_that_are_not_aligned_are_refused(placing_emulated, emulated: ctypes.CDLL, field: str) -> None:
    p = parameters(Case(1, 4, 1, 8, 64, first_token=None))
    size = emulated.cellscribe_latent_cross_workspace
    size.restype = ctypes.c_int64
    p.workspace_bytes = size(ctypes.byref(p))
    room = placing_emulated.place(np.zeros(1 << 20, np.uint8))
    for name in ("query", "memory", "out", "workspace"):
        setattr(p, name, placing_emulated.pointer(room) + (2 if name == field else 0))
    assert emulated.cellscribe_latent_cross(ctypes.byref(p), None) == BAD_SHAPE


def parameters(case: Case) -> LatentCross:
    """Sizes alone."""
    return LatentCross(
        num_slots=case.slots,
        num_heads=case.heads,
        num_tokens=case.tokens,
        num_genes=case.genes,
        width=case.width,
        first_token=case.first_token or 0,
    )
