"""What a machine can do at best, and the least time that follows from it."""

from __future__ import annotations

from dataclasses import dataclass

from cellscribe.engine.bench.work import Work


@dataclass(frozen=True)
class Ceilings:
    """Best rates that were measured in the same run.

    Parameters
    ----------
    bandwidth
        Bytes a second between memory and cores.
    matrix
        Operations a second of the matrix product in the arithmetic at hand; None where it was not measured, and then
        the arithmetic bounds nothing, which makes every share of the roofline smaller.
    state_matrix
        The same for attention, where it is computed in another arithmetic; None takes `matrix`.
    """

    bandwidth: float
    matrix: float | None = None
    state_matrix: float | None = None

    def bandwidth_seconds(self, work: Work) -> float:
        """Least seconds for the bytes."""
        return work.bytes / self.bandwidth

    def matrix_seconds(self, work: Work) -> float:
        """Least seconds for the operations; 0 where their rate was not measured."""
        if not self.matrix:
            return 0.0
        return (work.flops - work.state_flops) / self.matrix + work.state_flops / (self.state_matrix or self.matrix)

    def seconds(self, work: Work) -> float:
        """Least seconds for both at once."""
        return max(self.bandwidth_seconds(work), self.matrix_seconds(work))
