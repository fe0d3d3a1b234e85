"""The embedding kernel against its NumPy reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from placing import Runner, padded, same_bits

from cellscribe.kernels.parameters.embeddings import Embed
from cellscribe.kernels.reference.embeddings import embed

BAD_SHAPE = 10001


@dataclass(frozen=True)
class Case:
    """Sizes; `pad` columns of NaN behind each row."""

    rows: int
    width: int
    table_rows: int
    pad: int = 0


CASES = {
    "one": Case(1, 1, 1),
    "decoder": Case(5, 2048, 40),
    "encoder": Case(70, 512, 9, pad=8),
    "odd": Case(11, 21, 6, pad=2),
}


def run(runner: Runner, case: Case, table: np.ndarray, ids: np.ndarray, kind: type) -> dict[str, np.ndarray]:
    stride = case.width + case.pad
    p = Embed(
        num_rows=case.rows, width=case.width, table_rows=case.table_rows, out_fp32=kind is np.float32,
        table_row=stride, out_row=stride,
    )  # fmt: skip
    out = np.full((case.rows, stride), np.nan, kind)
    return runner("cellscribe_embed", p, {"table": padded(table, case.pad), "ids": ids, "out": out})


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_rows_of_a_table(runner: Runner, name: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    case, rng = CASES[name], np.random.default_rng(2)
    table = rng.normal(size=(case.table_rows, case.width)).astype(np.float16)
    ids = rng.integers(-3, case.table_rows + 3, case.rows)
    ids[-1] = -(2**40)
    found = run(runner, case, table, ids, kind)
    assert (found["out"][:, : case.width] == embed(table, ids)).all()
    assert np.isnan(found["out"][:, case.width :]).all()
    monkeypatch.setenv("CELLSCRIBE_EMULATOR_REVERSED", "1")
    assert same_bits(found, run(runner, case, table, ids, kind))


@pytest.mark.parametrize("change", [{"width": 0}, {"num_rows": -1}, {"table_rows": 0}])
def test_sizes_it_is_not_built_for_are_refused(runner: Runner, change: dict[str, int]) -> None:
    p = Embed(**({"num_rows": 1, "width": 8, "table_rows": 1} | change))
    assert runner.code("cellscribe_embed", p) == BAD_SHAPE
