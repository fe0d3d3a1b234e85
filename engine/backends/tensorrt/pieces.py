"""Splitting work into few different sizes, so that few kernels are compiled."""

from __future__ import annotations

from collections.abc import Iterator

from cellscribe.engine.backends.base import Ints


def pieces(slots: Ints, largest: int) -> Iterator[tuple[int, int]]:
    """Split sorted slot numbers into neighbours (first, count); counts are powers of two, at most `largest`."""
    start = 0
    for at in range(1, len(slots) + 1):
        if at < len(slots) and slots[at] == slots[at - 1] + 1:
            continue
        while start < at:
            count = next(size for size in sizes(largest) if size <= at - start)
            yield int(slots[start]), count
            start += count


def sizes(largest: int) -> list[int]:
    """Return the powers of two up to `largest`, falling."""
    return [1 << bit for bit in reversed(range(largest.bit_length()))]
