"""The rotary and cache kernel against its NumPy reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from placing import HALF, Runner, same_bits

from cellscribe.kernels.parameters.rotary_cache import RotaryCache
from cellscribe.kernels.reference.rotary_cache import turn, write_cache

BAD_SHAPE = 10001


@dataclass(frozen=True)
class Case:
    """Sizes as in the header; `starts` are the positions of token 0, `pad` widens the rows of qkv."""

    starts: tuple[int, ...]
    tokens: int
    heads: int
    kv_heads: int
    width: int
    capacity: int
    table_rows: int = 64
    pad: int = 0
    in_place: bool = False


CASES = {
    "one": Case((0,), 1, 1, 1, 8, 1),
    "step": Case((5, 0, 31), 1, 32, 4, 64, 32),
    "prompt": Case((0, 0), 9, 4, 2, 64, 12),
    "in place": Case((3, 7), 2, 8, 2, 64, 16, in_place=True),
    "half of 4": Case((2, 9), 3, 3, 1, 24, 16),
    "widest": Case((1,), 2, 2, 1, 256, 8),
    "odd rows": Case((4, 1), 2, 2, 2, 16, 8, pad=1),
    "beyond the cache": Case((-2, 6, 8, 2**31 - 1, -(2**31)), 4, 4, 2, 32, 8),
    "beyond the tables": Case((3,), 4, 2, 1, 32, 16, table_rows=5),
    "no queries": Case((2,), 3, 0, 2, 32, 8),
}


def inputs(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    columns = (case.heads + 2 * case.kv_heads) * case.width + case.pad
    qkv = rng.normal(size=(len(case.starts), case.tokens, columns)).astype(np.float16)
    qkv[..., columns - case.pad :] = np.nan
    angle = rng.uniform(0, 7, (case.table_rows, case.width // 2))
    return qkv, np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def run(runner: Runner, case: Case, given: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
    qkv, cos, sin = given
    slots, cache = len(case.starts), (len(case.starts), case.kv_heads, case.capacity, case.width)
    arrays = {
        "qkv": qkv, "cos": cos, "sin": sin, "positions": np.array(case.starts, np.int32),
        "out": np.full((slots, case.heads, case.tokens, case.width), np.nan, np.float16),
        "keys": np.full(cache, np.nan, np.float16), "values": np.full(cache, np.nan, np.float16),
    }  # fmt: skip
    p = RotaryCache(
        num_slots=slots, num_tokens=case.tokens, num_heads=case.heads, num_kv_heads=case.kv_heads, width=case.width,
        capacity=case.capacity, table_rows=case.table_rows, qkv_slot=qkv[0].size, qkv_token=qkv.shape[2],
        out_slot=case.heads * case.tokens * case.width, out_head=case.tokens * case.width, out_token=case.width,
        cache_slot=case.kv_heads * case.capacity * case.width, cache_head=case.capacity * case.width,
        cache_position=case.width,
    )  # fmt: skip
    if not case.in_place:
        return runner("cellscribe_rotary_cache", p, arrays)
    p.out_slot, p.out_head, p.out_token = p.qkv_slot, case.width, p.qkv_token
    placed = {name: runner.placing.place(a) for name, a in arrays.items()}
    for name, one in placed.items():
        setattr(p, name, runner.placing.pointer(one))
    p.out = p.qkv
    assert runner.code("cellscribe_rotary_cache", p) == 0
    found = {name: runner.placing.fetch(one) for name, one in placed.items()}
    rows = found["qkv"][..., : case.heads * case.width].reshape(slots, case.tokens, case.heads, case.width)
    return found | {"out": rows.transpose(0, 2, 1, 3)}


@pytest.mark.parametrize("name", CASES)
def test_queries_turn_and_keys_and_values_reach_the_cache(
    runner: Runner, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, given = CASES[name], inputs(CASES[name])
    qkv, cos, sin = given
    found = run(runner, case, given)
    heads = qkv[..., : qkv.shape[2] - case.pad].reshape(len(case.starts), case.tokens, -1, case.width)
    q, k, v = np.split(heads, [case.heads, case.heads + case.kv_heads], 2)
    positions = np.array(case.starts, np.int64)[:, None] + np.arange(case.tokens)
    cache = np.full(found["keys"].shape, np.nan)
    write_cache(cache, turn(k, cos, sin, positions), positions)
    HALF.check(found["out"], turn(q, cos, sin, positions).transpose(0, 2, 1, 3))
    HALF.check(found["keys"], cache)
    values = np.full(found["values"].shape, np.nan, np.float16)
    write_cache(values, v, positions)
    assert np.array_equal(found["values"], values, equal_nan=True)
    monkeypatch.setenv("CELLSCRIBE_EMULATOR_REVERSED", "1")
    assert same_bits(found, run(runner, case, given))


@pytest.mark.parametrize("change", [{"width": 12}, {"width": 264}, {"width": 0}, {"table_rows": 0}, {"num_slots": -1}])
def test_sizes_it_is_not_built_for_are_refused(runner: Runner, change: dict[str, int]) -> None:
    sizes = {"num_slots": 1, "num_tokens": 1, "num_heads": 1, "num_kv_heads": 1, "width": 64, "table_rows": 1}
    assert runner.code("cellscribe_rotary_cache", RotaryCache(**(sizes | change))) == BAD_SHAPE
