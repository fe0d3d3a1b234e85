"""The kernels in the emulator and, where there is one, on a GPU."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from placing import OnDevice, OnHost, Runner


@pytest.fixture(scope="session")
def emulated(emulated_kernels: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(emulated_kernels))


@pytest.fixture(scope="session")
def device_library(device_kernels: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(device_kernels))


@pytest.fixture
def placing_emulated() -> OnHost:
    return OnHost()


@pytest.fixture
def placing_device() -> OnDevice:
    return OnDevice()


@pytest.fixture(params=["emulated", pytest.param("device", marks=pytest.mark.gpu)])
def runner(request: pytest.FixtureRequest) -> Runner:
    """Calls kernels in the emulator, and on a GPU where one is."""
    library = "emulated" if request.param == "emulated" else "device_library"
    return Runner(request.getfixturevalue(f"placing_{request.param}"), request.getfixturevalue(library))
