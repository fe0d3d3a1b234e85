"""How much a cell file may ask of the machine."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class ReadLimits:
    """Bounds of the process that reads a file.

    Parameters
    ----------
    memory_bytes
        Memory that the reading process may allocate.
    seconds
        Longest silence of the reading process, per answer; long work reports that it goes on.
    max_expansion
        Largest ratio of a dataset's declared bytes to its stored bytes; datasets below `free_bytes` are exempt.
    free_bytes
        Declared size up to which the expansion is not looked at.
    full_check_values
        Matrices with at most this many stored values are checked whole when they are opened; larger ones are sampled
        over all their rows then, and checked block by block as they are read.
    """

    memory_bytes: int = 4096 * MIB
    seconds: float = 120.0
    max_expansion: float = 200.0
    free_bytes: int = 64 * MIB
    full_check_values: int = 20_000_000
