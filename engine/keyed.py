"""Keyed random numbers: a pure function of (seed, cell, counter), the same in any batch, order, process or machine.

The generator is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014)
used as a counter: the state of the n-th draw is ``key + n * GOLDEN``, so any draw can be computed alone, on a GPU too.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)

UInt64 = npt.NDArray[np.uint64]


def _mix(state: UInt64) -> UInt64:
    """Scramble 64-bit states (the finaliser of SplitMix64); owns and overwrites its argument."""
    state ^= state >> np.uint64(30)
    state *= _MIX_1
    state ^= state >> np.uint64(27)
    state *= _MIX_2
    state ^= state >> np.uint64(31)
    return state


def cell_key(cell_id: str) -> int:
    """Return the 64-bit identity of a cell: BLAKE2b of its name, so that order and position play no part."""
    return int.from_bytes(hashlib.blake2b(cell_id.encode(), digest_size=8).digest(), "little")


def cell_keys(cell_ids: npt.ArrayLike) -> UInt64:
    """Return :func:`cell_key` of every name as uint64 [N]."""
    return np.fromiter((cell_key(str(name)) for name in np.asarray(cell_ids).ravel()), dtype=np.uint64)


def stream_keys(seed: int, cells: UInt64, stream: int = 0) -> UInt64:
    """Combine seed, cells and a stream number (one per purpose) into stream keys, uint64 of the shape of `cells`."""
    head = _mix(np.array([(seed * 0x2545F4914F6CDD1D + stream) % 2**64], dtype=np.uint64) + _GOLDEN)
    return _mix((np.asarray(cells, dtype=np.uint64) ^ head) + _GOLDEN)


def uniforms(keys: UInt64, counters: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """Draw uniform numbers.

    Parameters
    ----------
    keys
        Stream keys (:func:`stream_keys`), broadcast against `counters`.
    counters
        The index of the draw in its stream (a token id, a position), at least 0.

    Returns
    -------
    float32 in [0, 1), multiples of 2**-24, of the broadcast shape.
    """
    state = draws(keys, np.asarray(counters).astype(np.uint64))
    return (state >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def draws(keys: UInt64, counters: UInt64) -> UInt64:
    """Draw 64 random bits for every key and counter (uint64, broadcast): what :func:`uniforms` is made of."""
    with np.errstate(over="ignore"):
        return _mix(np.asarray(keys, np.uint64) + (np.asarray(counters, np.uint64) + np.uint64(1)) * _GOLDEN)
