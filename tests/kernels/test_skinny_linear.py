"""The product of a few rows against its NumPy reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from placing import Runner, Tolerance, padded, same_bits

from cellscribe.kernels.parameters.skinny_linear import SkinnyLinear
from cellscribe.kernels.reference.activations import gated_silu
from cellscribe.kernels.reference.norms import rms_norm
from cellscribe.kernels.reference.skinny_linear import product, quantised

BAD_SHAPE, SMALL_WORKSPACE = 10001, 10002
FP16, INT8 = 0, 2
PLAIN, RMS_NORM, GATED_SILU = 0, 1, 2
OUT_FP16, OUT_FP32, OUT_ADD = 0, 1, 2
EPS = 1e-5


@dataclass(frozen=True)
class Case:
    """Sizes as in the header; `pad` columns of poison behind each row of x, weight (16 bytes) and out."""

    rows: int
    inner: int
    width: int
    input: int = PLAIN
    output: int = OUT_FP32
    bias: bool = False
    pad: bool = False
    splits: int = 0


CASES = {
    "smallest": Case(1, 8, 16),
    "one row": Case(1, 512, 256),
    "all rows": Case(8, 256, 144, output=OUT_FP16),
    "three rows, odd sizes": Case(3, 392, 48, bias=True, pad=True),
    "one split": Case(5, 1000, 80, splits=1),
    "many splits": Case(4, 1400, 64, splits=99, bias=True),
    "more than a block's range": Case(2, 2048, 16, splits=1),
    "queries": Case(1, 2048, 320, RMS_NORM, OUT_FP16),
    "queries, all rows": Case(8, 520, 96, RMS_NORM, OUT_FP16, pad=True),
    "back to the residual": Case(1, 704, 128, GATED_SILU, OUT_ADD),
    "back to the residual, rows": Case(7, 264, 208, GATED_SILU, OUT_ADD, bias=True, pad=True),
    "logits": Case(2, 256, 4000, RMS_NORM, OUT_FP32),
    "sum of plain rows": Case(6, 640, 64, PLAIN, OUT_ADD, splits=2),
}

Arrays = dict[str, np.ndarray]


def inputs(case: Case, weight_type: int) -> Arrays:
    rng = np.random.default_rng(9)
    columns = case.inner * (2 if case.input == GATED_SILU else 1)
    x = rng.normal(0.1, 1.0, (case.rows, columns))
    weight = rng.normal(size=(case.inner, case.width)) / np.sqrt(case.inner)
    given: Arrays = {
        "x": x.astype(np.float32 if case.input == RMS_NORM else np.float16),
        "weight": weight.astype(np.float16),
        "out": rng.normal(size=(case.rows, case.width)).astype(np.float16 if case.output == OUT_FP16 else np.float32),
    }
    if weight_type == INT8:
        given["weight"], given["scales"] = quantised(weight)
    if case.input == RMS_NORM:
        given["norm_weight"] = rng.normal(1.0, 0.2, case.inner).astype(np.float32)
    if case.bias:
        given["bias"] = rng.normal(size=case.width).astype(np.float32)
    return given


def wanted(case: Case, given: Arrays) -> np.ndarray:
    x = given["x"]
    if case.input == RMS_NORM:
        x = rms_norm(x, given["norm_weight"], EPS)
    elif case.input == GATED_SILU:
        x = gated_silu(x)
    total = product(x, given["weight"], given.get("scales"), given.get("bias"))
    return total + given["out"] if case.output == OUT_ADD else total


def parameters(case: Case, weight_type: int) -> SkinnyLinear:
    return SkinnyLinear(
        num_rows=case.rows, inner=case.inner, width=case.width, weight_type=weight_type, input=case.input,
        output=case.output, eps=EPS, num_splits=case.splits,
    )  # fmt: skip


def run(runner: Runner, case: Case, weight_type: int, given: Arrays) -> Arrays:
    p = parameters(case, weight_type)
    arrays = dict(given)
    if case.pad:
        poison = np.full((case.inner, 16 if weight_type == INT8 else 8), 99, given["weight"].dtype)
        arrays["weight"] = np.concatenate((given["weight"], poison), 1)
        arrays |= {name: padded(given[name], 8) for name in ("x", "out")}
    p.x_row, p.weight_row, p.out_row = (arrays[name].shape[1] for name in ("x", "weight", "out"))
    p.num_counters = runner.code("cellscribe_skinny_linear_counters", p)
    p.workspace_bytes = runner.code("cellscribe_skinny_linear_workspace", p)
    arrays["counters"] = np.zeros(max(p.num_counters, 1), np.uint32)
    arrays["workspace"] = np.full(max(p.workspace_bytes, 1), 0xFF, np.uint8)
    found = runner("cellscribe_skinny_linear", p, arrays)
    assert not found["counters"].any()
    return {"out": found["out"]}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("weight_type", [FP16, INT8], ids=["fp16", "int8"])
def test_products(runner: Runner, name: str, weight_type: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case, given = CASES[name], inputs(CASES[name], weight_type)
    found = run(runner, case, weight_type, given)
    # f(x) rounds to fp16 where its float32 and float64 values may lie on two sides of a half
    near = Tolerance(2e-3, 1e-3, 0.999999) if case.input or case.output == OUT_FP16 else Tolerance(1e-5, 1e-5, 0.999999)
    near.check(found["out"][:, : case.width], wanted(case, given))
    assert np.isnan(found["out"][:, case.width :]).all()
    assert same_bits(found, run(runner, case, weight_type, given))
    monkeypatch.setenv("CELLSCRIBE_EMULATOR_REVERSED", "1")
    assert same_bits(found, run(runner, case, weight_type, given))


@pytest.mark.parametrize("weight_type", [FP16, INT8], ids=["fp16", "int8"])
def test_every_column_and_every_k_has_its_place(runner: Runner, weight_type: int) -> None:
    case = Case(8, 336, 272, splits=2)
    given = inputs(case, weight_type)
    rng = np.random.default_rng(1)
    given["x"] = rng.integers(-2, 3, given["x"].shape).astype(np.float16)
    low, high = (-127, 128) if weight_type == INT8 else (-8, 9)
    given["weight"] = rng.integers(low, high, given["weight"].shape).astype(given["weight"].dtype)
    if weight_type == INT8:
        given["scales"] = np.ones(case.width, np.float32)
    assert (run(runner, case, weight_type, given)["out"] == wanted(case, given)).all()


@pytest.mark.parametrize("input_kind", [PLAIN, RMS_NORM, GATED_SILU])
def test_a_row_that_is_not_finite_spoils_itself_alone(runner: Runner, input_kind: int) -> None:
    case = Case(3, 200, 64, input_kind, splits=2)
    given = inputs(case, FP16)
    clean = run(runner, case, FP16, given)["out"]
    given["x"][1, 77] = np.nan
    spoilt = run(runner, case, FP16, given)["out"]
    assert np.isnan(spoilt[1]).all()
    assert (spoilt[[0, 2]] == clean[[0, 2]]).all()


def test_8_bit_weights_are_near_the_weights() -> None:
    weight = np.random.default_rng(3).normal(size=(100, 32)).astype(np.float32)
    weight[:, 5] = 0.0
    numbers, scales = quantised(weight)
    assert numbers.dtype == np.int8
    assert np.abs(numbers * scales - weight).max() <= scales.max() * 0.5001
    assert not numbers[:, 5].any()


@pytest.mark.parametrize(
    ("change", "weight_type"),
    [
        ({"num_rows": 0}, FP16),
        ({"num_rows": 9}, FP16),
        ({"inner": 12}, FP16),
        ({"inner": 0}, FP16),
        ({"width": 12}, FP16),
        ({"width": 24}, INT8),
        ({"weight_type": 1}, FP16),
        ({"input": 3}, FP16),
        ({"output": -1}, FP16),
        ({"weight_row": 20}, FP16),
        ({"weight": 24}, FP16),
        ({"scales": 16}, FP16),
        ({"scales": None}, INT8),
    ],
)
def test_sizes_it_is_not_built_for_are_refused(runner: Runner, change: dict[str, int], weight_type: int) -> None:
    p = parameters(Case(1, 64, 64), weight_type)
    p.weight, p.weight_row, p.scales = 16, 64, 16 if weight_type == INT8 else None
    for name, value in change.items():
        setattr(p, name, value)
    assert runner.code("cellscribe_skinny_linear", p) == BAD_SHAPE


def test_a_small_workspace_is_refused(runner: Runner) -> None:
    p = parameters(Case(1, 640, 64, splits=5), FP16)
    p.weight = p.x = p.out = p.workspace = p.counters = 16
    p.weight_row = 64
    p.workspace_bytes = runner.code("cellscribe_skinny_linear_workspace", p)
    assert runner.code("cellscribe_skinny_linear", p) == SMALL_WORKSPACE  # no counters
    p.num_counters = runner.code("cellscribe_skinny_linear_counters", p)
    p.counters = None
    assert runner.code("cellscribe_skinny_linear", p) == SMALL_WORKSPACE
    p.counters, p.workspace_bytes = 16, p.workspace_bytes - 1
    assert runner.code("cellscribe_skinny_linear", p) == SMALL_WORKSPACE


@pytest.mark.parametrize("missing", ["x", "out", "weight", "norm_weight"])
def test_arrays_that_are_missing_are_refused(runner: Runner, missing: str) -> None:
    p = parameters(Case(1, 640, 64), FP16)
    p.weight_row, p.input = 64, 1  # CELLSCRIBE_INPUT_RMS_NORM
    for name in ("x", "out", "weight", "norm_weight"):
        setattr(p, name, None if name == missing else 16)
    p.workspace = p.counters = 16
    p.workspace_bytes, p.num_counters = 1 << 30, 1 << 20
    assert runner.code("cellscribe_skinny_linear", p) == BAD_SHAPE
