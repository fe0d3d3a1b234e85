"""What one request, one client and all of them together may ask of the service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cellscribe.engine.cells.limits import MIB, ReadLimits
from cellscribe.engine.errors import UsageError

SHARE = 0.5  # of the free places, for one of several clients


@dataclass(frozen=True)
class ServiceLimits:
    """Bounds of a service.

    Parameters
    ----------
    disk_bytes
        What all uploaded files may have together, kept or under way: the least that the folder for temporary files is
        to have.
    cells, genes
        Cells of a request, and genes of one of them.
    labels
        Labels that an annotation may choose from.
    body_bytes, upload_bytes
        Largest body of a request, and of an uploaded file.
    queue_cells
        Cells that may wait for a slot, of all clients together; what comes on top is sent away with 429.
    client_share
        Part of what the others leave free, of these places and of files under way, that one client may take; 1 where
        all of it may be one client's, as it should be where there is only one.
    deadline_s
        Longest time that a request may take; shorter ones may be asked for.
    idle_s
        Longest silence of a client while it sends its body, and longest time that it does not read its answer.
    sending_s
        Longest time that a file may take to be sent which is to be kept; what is a request's body has its deadline.
    uploads, upload_s
        Files that are kept at a time, and for how long after they were last used.
    files_under_way
        Files that may be sent, or read as a whole, at a time, besides those that are kept.
    reading
        Bounds of the process that reads an uploaded file.

    Raises
    ------
    UsageError
        For a bound that is not above 0, a share above 1, or requests or files that could never be taken.
    """

    cells: int = 256
    genes: int = 70_000
    labels: int = 2_000
    body_bytes: int = 32 * MIB
    upload_bytes: int = 512 * MIB
    disk_bytes: int = 1_536 * MIB
    queue_cells: int = 1_024
    client_share: float = 1.0
    deadline_s: float = 300.0
    idle_s: float = 30.0
    sending_s: float = 1_800.0
    uploads: int = 8
    upload_s: float = 3_600.0
    files_under_way: int = 8
    reading: ReadLimits = field(default_factory=lambda: ReadLimits(memory_bytes=2_048 * MIB, seconds=60.0))

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, ReadLimits) and not value > 0:
                raise UsageError(f"the limit {name} is {value}; give a number above 0.")
        if self.client_share > 1:
            raise UsageError(f"the limit client_share is {self.client_share}; give a number of at most 1.")
        if self.upload_bytes > self.disk_bytes:
            raise UsageError(
                f"a file may have {self.upload_bytes:,} bytes (--max-upload-mb), and all files together only "
                f"{self.disk_bytes:,} (--max-disk-mb), so that it could never be taken; raise the one or "
                "lower the other."
            )
        most = granted(self.queue_cells, 0, self.client_share)
        if self.cells > most:
            whose = (
                "" if most == self.queue_cells else f" of one client ({self.client_share:g} of them, --client-share)"
            )
            raise UsageError(
                f"a request may have {self.cells} cells (--max-cells), and only {most}{whose} may wait (--max-queue), "
                "so that it could never be answered; raise the one or lower the other."
            )


def granted(most: int, others: int, share: float) -> int:
    """Return how many of `most` places one client may take while others have so many of them: one at least.

    However many clients take all that they are granted, there is some room left for the next one.
    """
    return max(1, int(share * (most - others)))


def share_of(asked: float | None, keys: Sequence[str], is_local: bool) -> float:
    """Return which part of the free places one client may take, where it was not said.

    Whoever comes next is to find some, so it is not all of them. Where everybody comes as one client, by one key or
    from this machine without any, nobody else can come: a share would only make the queue smaller.
    """
    if asked is not None:
        return asked
    return SHARE if len(keys) > 1 or not (keys or is_local) else 1.0
