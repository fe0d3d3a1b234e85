"""Keyed numbers on the device are those of the CPU, bit for bit."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from cellscribe.engine.keyed import stream_keys, uniforms


def check(placing, library: ctypes.CDLL) -> None:
    keys = np.repeat(stream_keys(7, np.arange(1001, dtype=np.uint64)), 9)
    counters = np.tile(np.arange(9), 1001)
    placed = [placing.place(array) for array in (keys, counters, np.full(len(keys), np.nan, np.float32))]
    pointers = [ctypes.c_void_p(placing.pointer(one)) for one in placed]
    assert library.cellscribe_keyed_uniform(*pointers, ctypes.c_int64(len(keys)), None) == 0
    assert (placing.fetch(placed[2]) == uniforms(keys, counters)).all()


def test_the_emulated_numbers(placing_emulated, emulated: ctypes.CDLL) -> None:
    check(placing_emulated, emulated)


@pytest.mark.gpu
def test_the_numbers_of_a_gpu(placing_device, device_library: ctypes.CDLL) -> None:
    check(placing_device, device_library)
