"""Choosing a token, as the kernel must: with sorts and float64, row by row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NOT_FINITE, SILENT = -1, -2

Array = npt.NDArray[np.floating]


def log_probability(logits: Array, token: int) -> float:
    """Return the natural log-probability of a token under logits [V]."""
    x = logits.astype(np.float64)
    return float(x[token] - x.max() - np.log(np.exp(x - x.max()).sum()))


def boundary_distance(logits: Array, temperature: float, top_p: float, draw: float) -> float:
    """Say how near a draw comes to choosing another token, as a share of the mass; logits are finite or -inf [V]."""
    x = logits.astype(np.float32)
    weights = np.exp(((x - x.max()) / np.float32(temperature)).astype(np.float64))
    mass = np.cumsum(np.sort(weights)[::-1])
    kept = min(int(np.searchsorted(mass, top_p * mass[-1])), len(mass) - 1)
    to_set = np.abs(mass - top_p * mass[-1]).min() if top_p < 1.0 else np.inf
    to_token = np.abs(mass - draw * mass[kept]).min()
    return float(min(to_set, to_token) / mass[-1])


@dataclass(frozen=True)
class SlotArrays:
    """The state of B slots, as the header names it."""

    finished: npt.NDArray[np.uint8]
    lengths: npt.NDArray[np.int32]
    tokens: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int32]

    def moved(
        self, chosen: npt.NDArray[np.integer], prompt_len: int, max_new_tokens: int, eos_ids: npt.NDArray[np.int32]
    ) -> tuple[SlotArrays, npt.NDArray[np.int32]]:
        """Return the state after a step that chose these tokens [B] (NOT_FINITE where lost), and what slots say."""
        runs = self.finished == 0
        ends = (chosen == NOT_FINITE) | np.isin(chosen, eos_ids) | (self.lengths + 1 >= max_new_tokens)
        state = SlotArrays(
            finished=np.where(runs, ends, self.finished).astype(np.uint8),
            lengths=(self.lengths + runs).astype(np.int32),
            tokens=np.where(runs, np.maximum(chosen, 0), self.tokens),
            positions=np.where(runs, prompt_len + self.lengths, self.positions).astype(np.int32),
        )
        return state, np.where(runs, chosen, SILENT).astype(np.int32)
