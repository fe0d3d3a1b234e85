"""What an encoder takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class TokenBatch:
    """Cells ready for an encoder.

    Parameters
    ----------
    rows
        Rows of the source, int64 [B].
    cell_ids
        Their names [B].
    genes
        Token ids, int64 [B, S]; "<cls>" first. May be read-only.
    values
        Values or digits, float32 [B, S].
    mask
        True at real tokens, bool [B, S]. May be read-only.
    columns
        Index in the source's var, -1 for "<cls>", padding and genes that the file lacks, int64 [B, S].
    failures
        Rows that cannot be fed, and why; they are not among `rows`, so that B may be 0.
    """

    rows: npt.NDArray[np.int64]
    cell_ids: tuple[str, ...]
    genes: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    columns: npt.NDArray[np.int64]
    failures: tuple[tuple[int, str], ...] = ()

    @property
    def n_cells(self) -> int:
        """Number of cells B."""
        return len(self.rows)
