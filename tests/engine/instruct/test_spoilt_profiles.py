"""Profiles that are not finite: such a cell fails alone, and nothing is drawn of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from instruct_bundles import GoldenInstructCell

import cellscribe as cs
from cellscribe.engine.backends.instruct import Profiles
from cellscribe.engine.bundle.load import DISPERSION
from cellscribe.engine.errors import BackendError, BundleError
from cellscribe.engine.instruct.sampling import are_finite
from cellscribe.engine.instruct.writing import CellOrder, write_cells
from cellscribe.engine.instruct_model import InstructModel


def test_what_is_finite() -> None:
    rates, dropout = np.ones((4, 3), np.float32), np.zeros((4, 3), np.float32)
    rates[1, 2], rates[2, 0], dropout[3, 1] = np.nan, np.inf, np.nan
    assert are_finite(Profiles(rates, dropout)).tolist() == [True, False, False, False]


@pytest.mark.parametrize("means", [False, True])
def test_a_spoilt_cell_fails_alone(
    instruct_bundle: Path, shared: Path, monkeypatch: pytest.MonkeyPatch, means: bool
) -> None:
    model = InstructModel(cs.load(instruct_bundle).bundle)
    order = CellOrder(5, instruction=GoldenInstructCell(shared).case("cpcg").instructions[0], means=means)
    whole, _ = write_cells(model, order)
    write, spoilt = model.runtime.write_profiles, [1, 3]

    def spoiling(*given: np.ndarray) -> Profiles:
        found = write(*given)
        rates = found.rates.copy()
        rates[spoilt, 7] = np.nan
        return Profiles(rates, found.dropout)

    monkeypatch.setattr(model.runtime, "write_profiles", spoiling)
    cells, said = write_cells(model, order)
    assert cells.obs_names.tolist() == ["generated_0", "generated_2", "generated_4"]
    np.testing.assert_array_equal(sp.csr_matrix(cells.X).toarray(), sp.csr_matrix(whole.X).toarray()[[0, 2, 4]])
    assert said.endswith("2 failed, first: the model's rates are not finite")
    spoilt[:] = range(5)
    with pytest.raises(BackendError, match=r"no cell was written \(the model's rates are not finite\)"):
        write_cells(model, order)


def test_a_dispersion_that_is_no_number_is_named(
    instruct_bundle: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = InstructModel(cs.load(instruct_bundle).bundle)
    theta = model.bundle.tensors(DISPERSION)["theta"].copy()
    theta[3] = np.nan
    monkeypatch.setattr(type(model.bundle), "tensors", lambda *_: {"theta": theta})
    order = CellOrder(2, instruction=GoldenInstructCell(shared).case("cpcg").instructions[0])
    with pytest.raises(BundleError, match=f"the dispersion of the gene {model.genes[3]} in .* is no number"):
        write_cells(model, order)


def test_counts_that_are_cut_are_noted(instruct_bundle: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = InstructModel(cs.load(instruct_bundle).bundle)
    write = model.runtime.write_profiles

    def huge(*given: np.ndarray) -> Profiles:
        found = write(*given)
        return Profiles(np.full_like(found.rates, 1e20), np.full_like(found.dropout, -30.0))

    monkeypatch.setattr(model.runtime, "write_profiles", huge)
    write_cells(model, CellOrder(2, instruction=GoldenInstructCell(shared).case("cpcg").instructions[0]))
    assert "reach 100,000,000, where drawn rates are cut" in model.notice
