"""Bytes and operations that a piece of work cannot do without."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """Bytes that must cross the memory bus at least once, and operations (a multiply or an add is one).

    Of all `flops`, `state_flops` are not done in the precision's own arithmetic: attention over caches and within the
    encoder, and the weights that attention absorbs.
    """

    bytes: float
    flops: float
    state_flops: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.bytes + other.bytes, self.flops + other.flops, self.state_flops + other.state_flops)

    def times(self, factor: float) -> Work:
        """Do it several times."""
        return Work(self.bytes * factor, self.flops * factor, self.state_flops * factor)
