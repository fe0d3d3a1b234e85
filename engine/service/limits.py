"""What one request, one client and all of them together may ask of the service."""

from __future__ import annotations

from dataclasses import dataclass, field

from cellscribe.engine.cells.limits import MIB, ReadLimits
from cellscribe.engine.errors import UsageError


@dataclass(frozen=True)
class ServiceLimits:
    """Bounds of a service.

    Parameters
    ----------
    cells, genes
        Cells of a request, and genes of one of them.
    labels
        Labels that an annotation may choose from.
    body_bytes, upload_bytes
        Largest body of a request, and of an uploaded file.
    queue_cells
        Cells that may wait for a slot, of all clients together; what comes on top is sent away with 429.
    deadline_s
        Longest time that a request may take; shorter ones may be asked for.
    idle_s
        Longest silence of a client while it sends its body.
    uploads, upload_s
        Files that are kept at a time, and for how long after they were last used.
    reading
        Bounds of the process that reads an uploaded file.
    """

    cells: int = 256
    genes: int = 70_000
    labels: int = 2_000
    body_bytes: int = 32 * MIB
    upload_bytes: int = 512 * MIB
    queue_cells: int = 1_024
    deadline_s: float = 300.0
    idle_s: float = 30.0
    uploads: int = 8
    upload_s: float = 3_600.0
    reading: ReadLimits = field(default_factory=lambda: ReadLimits(memory_bytes=2_048 * MIB, seconds=60.0))

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, ReadLimits) and not value > 0:
                raise UsageError(f"the limit {name} is {value}; give a number above 0.")
