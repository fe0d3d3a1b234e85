"""The grouped attention kernels against their NumPy reference: in the emulator everywhere, on a GPU where one is."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from placing import GUARD, Runner, padded, same_bits

from cellscribe.kernels.parameters.grouped_attention import GroupedAttention
from cellscribe.kernels.reference.grouped_attention import grouped_attention, visible_keys

BAD_SHAPE, SMALL_WORKSPACE = 10001, 10002
FUNCTION = "cellscribe_grouped_attention"
MASS_SCALE, MASS_BEFORE = 0.25, 2.0


@dataclass(frozen=True)
class Case:
    """Sizes as in the header; lengths, holes (share of masked keys) and positions choose what is attended to."""

    slots: int
    heads: int
    kv_heads: int
    tokens: int
    keys: int
    width: int = 64
    lengths: tuple[int, ...] = ()
    holes: float = 0.0
    positions: tuple[int, ...] = ()
    evidence: str = ""  # of "mass" or "add", and "weights"
    first_token: int = 0
    num_blocks: int = 0
    spread: float = 1.0


CASES = {
    "one key": Case(1, 1, 1, 1, 1, evidence="mass weights"),
    # a decoder's own tokens: step and prompt
    "step": Case(5, 16, 2, 1, 110, positions=(0, 1, 31, 64, 109)),
    "step in shares": Case(2, 8, 1, 1, 300, positions=(299, 130), num_blocks=64),
    "step, demo": Case(3, 4, 2, 1, 70, 24, positions=(5, 40, 69)),
    "step, 3 tokens": Case(3, 8, 1, 3, 75, positions=(0, 30, 72)),
    "step, 8 tokens": Case(2, 8, 1, 8, 150, positions=(17, 140)),
    "step, 8 tokens in shares": Case(1, 8, 1, 8, 150, positions=(91,), num_blocks=9),
    "step of many": Case(7, 16, 2, 2, 70, positions=(0, 68, 5, 60, 31, 32, 33)),
    "step, nothing yet": Case(2, 8, 2, 1, 40, positions=(-1, 3)),
    "prompt": Case(2, 8, 1, 33, 60, positions=(0, 20)),
    "prompt, 90 tokens": Case(1, 16, 2, 90, 130, positions=(0,)),
    "prompt, one kv head": Case(1, 2, 1, 37, 50, positions=(9,)),
    "prompt, demo": Case(2, 4, 2, 33, 64, 24, positions=(0, 31)),
    # an encoder's genes
    "genes": Case(1, 2, 2, 161, 161, holes=0.3),
    "genes, narrow blocks": Case(1, 1, 1, 75, 140, holes=0.1),
    "genes, wide blocks": Case(2, 2, 2, 129, 129, lengths=(129, 70)),
    "genes, 16 wide": Case(1, 2, 2, 150, 150, 16, lengths=(99,)),
    "genes, 128 wide": Case(1, 1, 1, 100, 100, 128, holes=0.2),
    "genes of no cell": Case(2, 1, 1, 70, 40, lengths=(0, 40)),
    # a cell's memory: step and prompt
    "memory": Case(3, 8, 8, 1, 257, lengths=(257, 31, 0), evidence="mass"),
    "memory, one row": Case(2, 16, 2, 1, 1, evidence="mass weights"),
    "memory, grouped": Case(2, 32, 4, 1, 161, holes=0.4, evidence="add weights"),
    "memory in shares": Case(2, 16, 2, 1, 700, lengths=(700, 65), evidence="mass weights", num_blocks=24),
    "memory, no evidence": Case(2, 8, 8, 1, 200, holes=0.9, num_blocks=32),
    "memory, demo": Case(2, 4, 4, 2, 61, 24, evidence="mass", first_token=1),
    "memory, 128 wide": Case(2, 8, 2, 5, 90, 128, evidence="weights", lengths=(90, 33), num_blocks=16),
    "memory, 7 tokens": Case(2, 8, 1, 7, 99, evidence="add", first_token=3, holes=0.2),
    "memory, prompt": Case(2, 8, 2, 33, 97, evidence="mass weights", first_token=32, lengths=(97, 40)),
    "memory, 90 tokens": Case(1, 2, 2, 90, 65, evidence="mass", first_token=89),
    "memory, prompt with all weights": Case(1, 4, 2, 33, 50, evidence="weights"),
    "memory, prompt of one slot": Case(1, 2, 1, 33, 520, lengths=(515,)),
    "prompt with evidence": Case(1, 8, 2, 40, 48, positions=(8,), evidence="mass weights", first_token=39),
    "peaked": Case(2, 8, 8, 2, 300, evidence="mass weights", spread=12.0, num_blocks=64),
    "holes, lengths and positions": Case(2, 4, 2, 3, 90, lengths=(50, 90), positions=(60, 20), holes=0.3),
}  # fmt: skip


@dataclass(frozen=True)
class Given:
    query: np.ndarray  # [B, H, T, D]
    key: np.ndarray  # [B, K, C, D]
    value: np.ndarray
    mask: np.ndarray | None  # [B, C]
    visible: np.ndarray  # [B, T, C]


@cache
def given_for(case: Case) -> Given:
    """Random inputs; keys and values that no token may see are NaN."""
    rng = np.random.default_rng(11)
    caches = (case.slots, case.kv_heads, case.keys, case.width)
    query = (case.spread * rng.normal(size=(case.slots, case.heads, case.tokens, case.width))).astype(np.float16)
    key, value = (rng.normal(size=caches).astype(np.float16) for _ in range(2))
    mask = rng.random((case.slots, case.keys)) >= case.holes if case.holes else None
    lengths, positions = (np.array(x, np.int32) if x else None for x in (case.lengths, case.positions))
    visible = visible_keys(case.slots, case.tokens, case.keys, mask, lengths, positions)
    unseen = ~visible.any(1)[:, None].repeat(case.kv_heads, 1)
    key[unseen], value[unseen] = np.nan, np.nan
    return Given(query, key, value, mask, visible)


def arrays_of(case: Case, given: Given) -> dict[str, np.ndarray | None]:
    tokens = case.tokens - case.first_token
    shape = (case.slots, case.heads, tokens, case.keys)
    before = MASS_BEFORE if "add" in case.evidence else np.nan
    wants_mass = "mass" in case.evidence or "add" in case.evidence
    return {
        "query": np.ascontiguousarray(given.query.transpose(0, 2, 1, 3)),  # token-major: strides are used
        "key": padded(given.key, 8),
        "value": padded(given.value, 16),
        "mask": None if given.mask is None else given.mask.astype(np.uint8),
        "lengths": np.array(case.lengths, np.int32) if case.lengths else None,
        "positions": np.array(case.positions, np.int32) if case.positions else None,
        "out": np.full((case.slots, case.tokens, case.heads, case.width + 8), np.nan, np.float16),
        "mass": np.full((case.slots, tokens, case.keys), before, np.float32) if wants_mass else None,
        "weights": np.full(shape, np.nan, np.float32) if "weights" in case.evidence else None,
    }


def parameters(case: Case) -> GroupedAttention:
    """Sizes and strides of what `arrays_of` makes."""
    width, keys, tokens = case.width, case.keys, case.tokens - case.first_token
    return GroupedAttention(
        num_slots=case.slots, num_heads=case.heads, num_kv_heads=case.kv_heads, num_tokens=case.tokens, num_keys=keys,
        head_width=width, scale=width**-0.5,
        query_slot=case.tokens * case.heads * width, query_head=width, query_token=case.heads * width,
        key_slot=case.kv_heads * keys * (width + 8), key_head=keys * (width + 8), key_row=width + 8,
        value_slot=case.kv_heads * keys * (width + 16), value_head=keys * (width + 16), value_row=width + 16,
        mask_slot=keys,
        out_slot=case.tokens * case.heads * (width + 8), out_head=width + 8, out_token=case.heads * (width + 8),
        mass_slot=tokens * keys, mass_token=keys, mass_scale=MASS_SCALE, mass_add="add" in case.evidence,
        weights_slot=case.heads * tokens * keys, weights_head=tokens * keys, weights_token=keys,
        first_token=case.first_token, num_blocks=case.num_blocks,
    )  # fmt: skip


def workspace_bytes(runner: Runner, p: GroupedAttention) -> int:
    size = runner.library.cellscribe_grouped_attention_workspace
    size.restype = ctypes.c_int64
    return int(size(ctypes.byref(p)))


def run(runner: Runner, case: Case, given: Given | None = None) -> dict[str, np.ndarray]:
    arrays = arrays_of(case, given or given_for(case))
    p = parameters(case)
    for name in ("mass", "weights"):  # the workspace depends on whether they are asked for
        setattr(p, name, None if arrays[name] is None else GUARD)
    p.workspace_bytes = workspace_bytes(runner, p)
    if p.workspace_bytes:
        arrays["workspace"] = np.full(p.workspace_bytes, 0xFF, np.uint8)
    found = runner(FUNCTION, p, arrays)
    return {name: found[name] for name in ("out", "mass", "weights") if name in found}


@pytest.mark.parametrize("name", CASES)
def test_it_equals_the_reference(runner: Runner, name: str) -> None:
    case = CASES[name]
    given = given_for(case)
    mixed, weights = grouped_attention(given.query, given.key, given.value, given.visible, case.width**-0.5)
    found = run(runner, case)
    assert np.isnan(found["out"][..., case.width :]).all()
    check_mixed(found["out"][..., : case.width].transpose(0, 2, 1, 3), mixed)
    check_evidence(case, found, weights[:, :, case.first_token :])
    assert same_bits(found, run(runner, case))


def check_mixed(out: np.ndarray, mixed: np.ndarray) -> None:
    out = out.astype(np.float64)
    error, size = np.abs(out - mixed), max(1.0, np.abs(mixed).max())
    assert error.max() < 3e-3 * size
    assert np.quantile(error, 0.99) < 1e-3 * size
    rows = np.linalg.norm(mixed, axis=-1) > 0
    cosine = (out * mixed).sum(-1)[rows] / np.linalg.norm(mixed, axis=-1)[rows] / np.linalg.norm(out, axis=-1)[rows]
    assert cosine.min(initial=1.0) > 0.99999
    assert not out[~rows].any()


def check_evidence(case: Case, found: dict[str, np.ndarray], weights: np.ndarray) -> None:
    assert set(found) - {"out"} == {name.replace("add", "mass") for name in case.evidence.split()}
    unseen = ~given_for(case).visible[:, case.first_token :]  # [B, T, C]
    if "weights" in found:
        assert np.abs(found["weights"] - weights).max() < 1e-3 * weights.max()
        assert not found["weights"][unseen[:, None].repeat(case.heads, 1)].any()
    if "mass" in found:
        wanted = MASS_SCALE * weights.sum(1) + (MASS_BEFORE if "add" in case.evidence else 0.0)
        assert np.abs(found["mass"] - wanted).max() < 1e-3 * max(wanted.max(), MASS_SCALE)
        assert (found["mass"][unseen] == (MASS_BEFORE if "add" in case.evidence else 0.0)).all()


@pytest.fixture
def emulating(placing_emulated, emulated: ctypes.CDLL) -> Runner:
    return Runner(placing_emulated, emulated)


REORDERED = ["step", "step, 8 tokens in shares", "genes", "memory in shares", "memory, prompt", "memory, 128 wide"]


@pytest.mark.parametrize("name", REORDERED)
def test_the_order_of_threads_plays_no_part(emulating: Runner, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = run(emulating, CASES[name])
    monkeypatch.setenv("CELLSCRIBE_EMULATOR_REVERSED", "1")
    assert same_bits(forward, run(emulating, CASES[name]))


def test_a_slot_does_not_depend_on_the_others(emulating: Runner) -> None:
    both = Case(2, 8, 2, 1, 90, positions=(50, 89), evidence="mass")
    other = Case(2, 8, 2, 1, 90, positions=(50, 3), evidence="mass")
    first, second = run(emulating, both, given_for(both)), run(emulating, other, given_for(both))
    assert first["out"][0].tobytes() == second["out"][0].tobytes()
    assert first["mass"][0].tobytes() == second["mass"][0].tobytes()


@pytest.mark.parametrize("shape", [Case(3, 8, 2, 1, 70, evidence="mass"), Case(3, 1, 1, 70, 70)])
def test_what_is_not_finite_spoils_its_slot_alone(emulating: Runner, shape: Case) -> None:
    given = given_for(shape)
    clean = run(emulating, shape)
    key = given.key.copy()
    key[1, 0, 40, 3] = np.nan
    spoilt = run(emulating, shape, Given(given.query, key, given.value, given.mask, given.visible))
    group = shape.heads // shape.kv_heads
    assert np.isnan(spoilt["out"][1, :, :group]).all()
    for slot in (0, 2):
        assert spoilt["out"][slot].tobytes() == clean["out"][slot].tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"head_width": 20}, {"head_width": 136}, {"num_heads": 7}, {"num_kv_heads": 0}, {"num_slots": 0},
        {"num_tokens": 0}, {"num_keys": 0}, {"num_keys": 70000}, {"first_token": 3}, {"scale": 0.0}, {"key_row": 68},
        {"num_blocks": -1},
    ],
)  # fmt: skip
def test_sizes_it_is_not_built_for_are_refused(emulating: Runner, change: dict[str, int]) -> None:
    p = parameters(Case(1, 8, 2, 2, 8))
    for name, value in change.items():
        setattr(p, name, value)
    assert emulating.code(FUNCTION, p) == BAD_SHAPE
    if "key_row" not in change:
        assert workspace_bytes(emulating, p) == 0


def test_a_small_workspace_is_refused(emulating: Runner) -> None:
    p = parameters(Case(1, 8, 2, 1, 500, num_blocks=8))
    p.workspace_bytes = workspace_bytes(emulating, p) - 1
    assert p.workspace_bytes > 0
    assert emulating.code(FUNCTION, p) == SMALL_WORKSPACE
