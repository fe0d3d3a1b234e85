"""How much is measured: which sizes, and for how long."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from cellscribe.engine.bench.clock import Effort
from cellscribe.engine.errors import UsageError
from cellscribe.engine.types import MAX_NEW_TOKENS, MIN_NEW_TOKENS

_MOST = {"slots": 512, "new_tokens": MAX_NEW_TOKENS, "memory_lens": 10**6, "capacities": 10**6, "cells": 10**6}


@dataclass(frozen=True)
class Settings:
    """Sizes of the questions; what a bundle cannot do (longer memories, caches) is left out there.

    Parameters
    ----------
    slots
        Numbers of slots.
    new_tokens
        Lengths of whole texts.
    memory_lens
        Lengths of a cell's memory; the bundle's own is added.
    capacities
        Tokens that the caches hold, prompt included.
    cells
        Numbers of cells.
    num_slots, text_len
        Slots and length of text of the questions that vary something else.
    most_seconds
        A number of cells that would take longer is left out, as the cost of the last one tells.
    effort
        Rounds and seconds of each comparison.
    seed
        Key of drawn lengths and of bootstraps.

    Raises
    ------
    UsageError
        For an empty list, or a size that cannot be.
    """

    slots: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    new_tokens: tuple[int, ...] = (32, 96, 256)
    memory_lens: tuple[int, ...] = (300, 600, 1201)
    capacities: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    cells: tuple[int, ...] = (10, 100, 1000, 10_000)
    num_slots: int = 8
    text_len: int = 96
    most_seconds: float = 900.0
    effort: Effort = field(default_factory=Effort)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            sizes: tuple[int, ...] = getattr(self, name)
            if not sizes:
                raise UsageError(f"the list of {name} is empty; give at least one whole number.")
            least = MIN_NEW_TOKENS if name == "new_tokens" else 1
            wrong = [size for size in sizes if not least <= size <= most]
            if wrong:
                raise UsageError(f"{name} has {wrong[0]}; choose whole numbers from {least} to {most}.")
        if not 1 <= self.num_slots <= _MOST["slots"] or not MIN_NEW_TOKENS <= self.text_len <= MAX_NEW_TOKENS:
            raise UsageError(
                f"{self.num_slots} slots of {self.text_len} tokens cannot be run; choose 1 to {_MOST['slots']} slots "
                f"and {MIN_NEW_TOKENS} to {MAX_NEW_TOKENS} tokens."
            )

    @classmethod
    def quick(cls) -> Settings:
        """Return the few sizes that end within a minute with the packaged bundle."""
        return cls(
            slots=(1, 8, 32),
            new_tokens=(32, 96),
            capacities=(128, 256, 512),
            cells=(10, 100),
            text_len=32,
            most_seconds=10.0,
            effort=Effort(min_rounds=5, seconds=1.0),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return them for JSON."""
        found = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
