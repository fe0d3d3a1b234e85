"""The trend within a run: found where there is one, and not where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import flat


def test_a_growing_cost_is_found() -> None:
    noise = 0.1 * np.sin(np.arange(20) * 2.4)
    slope, interval = flat.trend(5.0 + 0.5 * np.arange(20) * flat.BLOCK / 1e3 + noise)
    assert slope == pytest.approx(0.5, abs=interval)
    assert interval < 0.1
    slope, interval = flat.trend(5.0 + noise)
    assert abs(slope) <= interval


def test_every_block_of_a_run_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "BLOCK", 20)
    monkeypatch.setattr(flat, "REFERENCE", 5)
    found = flat.measured(4 * flat.BLOCK)
    assert len(found["ms_per_cell"]) == len(found["peak_mb"]) == 4
    assert len(found["ms_per_cell_of_the_yardstick"]) == 5
    assert min(found["ms_per_cell"]) > 0
    assert f"{np.median(found['ms_per_cell']):.2f} ms a cell" in found["sentence"]
