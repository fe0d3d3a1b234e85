"""What a bundle that follows instructions says of its prompts and texts."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class InstructInput:
    """Ids of tokens, and how counts are scaled before the tower reads their log1p.

    A prompt's `placeholder_id` stands for its cell, between `start_tag_id` and `end_tag_id`. Texts begin after
    `start_id`, which is not written, and end at one of `eos_token_ids`; `signal_id` is one of them and says that a cell
    follows.

    Raises
    ------
    ValueError
        For a total that is not above 0, or where nothing but the signal ends a text.
    """

    start_tag_id: int
    placeholder_id: int
    end_tag_id: int
    signal_id: int
    start_id: int
    eos_token_ids: tuple[int, ...]
    target_sum: float = 1e4

    def __post_init__(self) -> None:
        if not 0.0 < self.target_sum < math.inf:
            raise ValueError(f"target_sum is {self.target_sum:g}, and must be above 0")
        if min(self.eos_token_ids, default=-1) < 0 or not set(self.eos_token_ids) - {self.signal_id}:
            raise ValueError(f"eos_token_ids are {self.eos_token_ids}; one other than the signal must end texts")
