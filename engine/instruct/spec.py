"""What a bundle that follows instructions says of its prompts and texts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InstructInput:
    """Ids of tokens, and how counts are scaled before the tower reads their log1p.

    A prompt's `placeholder_id` stands for its cell, between `start_tag_id` and `end_tag_id`. Texts begin after
    `start_id`, which is not written, and end at one of `eos_token_ids`; `signal_id` is one of them and says that a cell
    follows.
    """

    start_tag_id: int
    placeholder_id: int
    end_tag_id: int
    signal_id: int
    start_id: int
    eos_token_ids: tuple[int, ...]
    target_sum: float = 1e4
