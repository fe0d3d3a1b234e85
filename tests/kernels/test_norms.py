"""RMS norm and LayerNorm kernels against their NumPy references."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from placing import HALF, SINGLE, Runner, padded, same_bits

from cellscribe.kernels.parameters.norms import AddLayerNorm, AddRmsNorm
from cellscribe.kernels.reference.norms import added, layer_norm, rms_norm

BAD_SHAPE = 10001
EPS = 1e-5


@dataclass(frozen=True)
class Case:
    """Sizes; `pad` columns of NaN behind each row, `scale` of the inputs, and which optional parts are there."""

    rows: int
    width: int
    pad: int = 0
    scale: float = 1.0
    update: bool = True
    bias: bool = False
    out: bool = True
    table_rows: int = 0
    nan: bool = False


CASES = {
    "one element": Case(1, 1),
    "decoder": Case(3, 2048, pad=8),
    "decoder, no update": Case(2, 2048, update=False),
    "sum only": Case(2, 96, out=False),
    "encoder": Case(9, 512, bias=True, table_rows=5),
    "widest": Case(1, 8192, bias=True),
    "odd width": Case(4, 13, pad=3, bias=True, table_rows=2),
    "odd stride": Case(5, 264, pad=1),
    "large": Case(2, 640, scale=200.0),
    "tiny": Case(2, 72, scale=1e-4),
    "a row is lost": Case(4, 40, nan=True),
}


def inputs(case: Case) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(11)
    shape = (case.rows, case.width)
    given = {
        "x": rng.normal(0.3, case.scale, shape).astype(np.float32),
        "update": rng.normal(0.0, case.scale, shape).astype(np.float16),
        "update_bias": rng.normal(size=case.width).astype(np.float32),
        "weight": rng.normal(1.0, 0.2, case.width).astype(np.float32),
        "bias": rng.normal(size=case.width).astype(np.float32),
        "table": rng.normal(size=(max(case.table_rows, 1), case.width)).astype(np.float16),
        "ids": rng.integers(-2, case.table_rows + 2, case.rows),
    }
    if case.nan:
        given["update"][1, 3] = np.nan
    return given


def run_rms(runner: Runner, case: Case, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    stride = case.width + case.pad
    p = AddRmsNorm(num_rows=case.rows, width=case.width, eps=EPS, x_row=stride, update_row=stride, out_row=stride)
    arrays = {
        "x": padded(given["x"], case.pad),
        "update": padded(given["update"], case.pad) if case.update else None,
        "update_bias": given["update_bias"] if case.bias else None,
        "weight": given["weight"],
        "out": np.full((case.rows, stride), np.nan, np.float16) if case.out else None,
    }
    return runner("cellscribe_add_rms_norm", p, arrays)


def run_layer(runner: Runner, case: Case, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    stride = case.width + case.pad
    p = AddLayerNorm(
        num_rows=case.rows, width=case.width, eps=EPS, x_row=stride, update_row=stride, out_row=stride,
        table_row=stride, table_rows=case.table_rows,
    )  # fmt: skip
    arrays = {
        "x": padded(given["x"].astype(np.float16), case.pad),
        "update": padded(given["update"], case.pad) if case.update else None,
        "update_bias": given["update_bias"] if case.bias else None,
        "weight": given["weight"],
        "bias": given["bias"],
        "table": padded(given["table"], case.pad) if case.table_rows else None,
        "ids": given["ids"] if case.table_rows else None,
        "out": np.full((case.rows, stride), np.nan, np.float16),
    }
    return runner("cellscribe_add_layer_norm", p, arrays)


def total(case: Case, given: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    return added(x, given["update"] if case.update else None, given["update_bias"] if case.bias else None)


@pytest.mark.parametrize("name", CASES)
def test_rms_norm(runner: Runner, name: str) -> None:
    case, given = CASES[name], inputs(CASES[name])
    found = run_rms(runner, case, given)
    x = total(case, given, given["x"])
    SINGLE.check(found["x"][:, : case.width], x)
    assert np.isnan(found["x"][:, case.width :]).all()
    if case.out:
        HALF.check(found["out"][:, : case.width], rms_norm(x, given["weight"], EPS))
        assert np.isnan(found["out"][:, case.width :]).all()
    assert same_bits(found, run_rms(runner, case, given))


@pytest.mark.parametrize("name", CASES)
def test_layer_norm(runner: Runner, name: str) -> None:
    case, given = CASES[name], inputs(CASES[name])
    found = run_layer(runner, case, given)
    x = total(case, given, given["x"].astype(np.float16))
    wanted = layer_norm(x, given["weight"], given["bias"], EPS)
    if case.table_rows:
        wanted += given["table"][np.clip(given["ids"], 0, case.table_rows - 1)]
    HALF.check(found["out"][:, : case.width], wanted)
    assert np.isnan(found["out"][:, case.width :]).all()
    assert same_bits(found, run_layer(runner, case, given))


def test_the_order_of_threads_plays_no_part(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    case, given = CASES["encoder"], inputs(CASES["encoder"])
    forward = run_rms(runner, case, given), run_layer(runner, case, given)
    monkeypatch.setenv("CELLSCRIBE_EMULATOR_REVERSED", "1")
    assert same_bits(forward[0], run_rms(runner, case, given))
    assert same_bits(forward[1], run_layer(runner, case, given))


def test_a_layer_norm_may_write_over_its_input(runner: Runner) -> None:
    rng = np.random.default_rng(3)
    x, weight, bias = rng.normal(size=(3, 520)).astype(np.float16), np.ones(520, np.float32), np.zeros(520, np.float32)
    p = AddLayerNorm(num_rows=3, width=520, eps=EPS, x_row=520, out_row=520)
    on = {name: runner.placing.place(a) for name, a in {"x": x, "weight": weight, "bias": bias}.items()}
    for name, one in on.items():
        setattr(p, name, runner.placing.pointer(one))
    p.out = p.x
    assert runner.code("cellscribe_add_layer_norm", p) == 0
    HALF.check(runner.placing.fetch(on["x"]), layer_norm(x, weight, bias, EPS))


@pytest.mark.parametrize("change", [{"width": 0}, {"width": 8193}, {"num_rows": -1}])
def test_sizes_they_are_not_built_for_are_refused(runner: Runner, change: dict[str, int]) -> None:
    sizes = {"num_rows": 1, "width": 8} | change
    assert runner.code("cellscribe_add_rms_norm", AddRmsNorm(**sizes)) == BAD_SHAPE
    assert runner.code("cellscribe_add_layer_norm", AddLayerNorm(**sizes)) == BAD_SHAPE


def test_no_rows_are_no_work(runner: Runner) -> None:
    assert runner.code("cellscribe_add_rms_norm", AddRmsNorm(num_rows=0, width=8)) == 0
