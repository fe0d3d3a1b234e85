"""Element-wise kernels against their NumPy references."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from placing import HALF, Runner, padded, same_bits

from cellscribe.kernels.parameters.activations import BiasRelu, GatedSilu, ValueExpand
from cellscribe.kernels.reference.activations import gated_silu, relu, value_expand

BAD_SHAPE = 10001


@dataclass(frozen=True)
class Case:
    """Sizes; `pad` columns of NaN behind each row."""

    rows: int
    width: int
    pad: int = 0
    scale: float = 1.0


CASES = {
    "one": Case(1, 1),
    "decoder": Case(2, 5632),
    "encoder": Case(33, 512),
    "odd width": Case(7, 27, pad=2),
    "odd stride": Case(3, 64, pad=1),
    "large": Case(4, 40, pad=8, scale=60.0),
}


def draw(case: Case, columns: int) -> np.ndarray:
    x = np.random.default_rng(5).normal(0.0, case.scale, (case.rows, columns)).astype(np.float16)
    x[case.rows // 2, columns // 3] = np.nan
    return x


def check(case: Case, found: dict[str, np.ndarray], wanted: np.ndarray) -> None:
    HALF.check(found["out"][:, : case.width], wanted)
    assert np.isnan(found["out"][:, case.width :]).all()


def empty(case: Case) -> np.ndarray:
    return np.full((case.rows, case.width + case.pad), np.nan, np.float16)


def run_silu(runner: Runner, case: Case, x: np.ndarray) -> dict[str, np.ndarray]:
    sizes = {"x_row": 2 * case.width + case.pad, "out_row": case.width + case.pad}
    p = GatedSilu(num_rows=case.rows, width=case.width, **sizes)
    return runner("cellscribe_gated_silu", p, {"x": padded(x, case.pad), "out": empty(case)})


@pytest.mark.parametrize("name", CASES)
def test_gated_silu(runner: Runner, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    x = draw(case, 2 * case.width)
    found = run_silu(runner, case, x)
    check(case, found, gated_silu(x))
    monkeypatch.setenv("CELLSCRIBE_EMULATOR_REVERSED", "1")
    assert same_bits(found, run_silu(runner, case, x))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("with_relu", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_bias_and_relu(runner: Runner, name: str, with_relu: bool, with_bias: bool) -> None:
    case = CASES[name]
    x, stride = draw(case, case.width), case.width + case.pad
    bias = np.random.default_rng(6).normal(size=case.width).astype(np.float32) if with_bias else None
    p = BiasRelu(num_rows=case.rows, width=case.width, relu=with_relu, x_row=stride, out_row=stride)
    found = runner("cellscribe_bias_relu", p, {"x": padded(x, case.pad), "bias": bias, "out": empty(case)})
    total = x.astype(np.float64) + (0.0 if bias is None else bias)
    check(case, found, relu(total) if with_relu else total)


@pytest.mark.parametrize("name", CASES)
def test_value_expand(runner: Runner, name: str) -> None:
    case = CASES[name]
    rng = np.random.default_rng(8)
    values = rng.uniform(-2.0, 700.0, case.rows).astype(np.float32)
    values[0] = np.nan
    weight, bias = (rng.normal(size=case.width).astype(np.float32) for _ in range(2))
    p = ValueExpand(num_rows=case.rows, width=case.width, max_value=512.0, out_row=case.width + case.pad)
    found = runner("cellscribe_value_expand", p, {"values": values, "weight": weight, "bias": bias, "out": empty(case)})
    check(case, found, value_expand(values, weight, bias, 512.0))


def test_far_gates_are_finite(runner: Runner) -> None:
    case = Case(1, 4)
    x = np.array([[-6e4, -100.0, 6e4, 0.0, 1.0, 2.0, 1.0, 3.0]], np.float16)
    assert run_silu(runner, case, x)["out"].tolist() == [[0.0, 0.0, 6e4, 0.0]]


@pytest.mark.parametrize("sizes", [{"num_rows": 1, "width": 0}, {"num_rows": -1, "width": 8}])
def test_sizes_they_are_not_built_for_are_refused(runner: Runner, sizes: dict[str, int]) -> None:
    assert runner.code("cellscribe_gated_silu", GatedSilu(**sizes)) == BAD_SHAPE
    assert runner.code("cellscribe_bias_relu", BiasRelu(**sizes)) == BAD_SHAPE
    assert runner.code("cellscribe_value_expand", ValueExpand(**sizes)) == BAD_SHAPE


def test_no_rows_are_no_work(runner: Runner) -> None:
    assert runner.code("cellscribe_gated_silu", GatedSilu(num_rows=0, width=8)) == 0
