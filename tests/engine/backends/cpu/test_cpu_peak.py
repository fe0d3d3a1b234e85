from __future__ import annotations

import pytest

from cellscribe.engine.backends.cpu import peak
from cellscribe.kernels.cpu_library import PATH_VARIABLE

NAMES = ("fp32", "bf16", "int8")


def test_every_arithmetic_has_two_rates(monkeypatch: pytest.MonkeyPatch, native_library: None) -> None:
    monkeypatch.setattr(peak, "_SIZE", 256)
    monkeypatch.setattr(peak, "_SECONDS", 0.01)
    found = peak.peak(1)
    assert set(found) == {*NAMES, *(f"{name} registers" for name in NAMES)}
    assert all(1e8 < rate < 1e14 for rate in found.values())


def test_without_the_library_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATH_VARIABLE, "")
    assert peak.peak(1) == {}
