"""What a question asks to be timed: cases, in groups whose rounds are interleaved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cellscribe.engine.bench.clock import Call, Effort
from cellscribe.engine.bench.row import Row


@dataclass(frozen=True)
class Case:
    """A row to be: all of it but the samples, and what makes ready (slots, memories) and returns the call to time."""

    row: Row
    open: Callable[[], Call]


@dataclass(frozen=True)
class Group:
    """Cases that are timed in the same rounds.

    `key` names it in a results file, so that a run can be resumed; `effort` overrules the settings'; `left_out` says
    why nothing is timed; `took` collects the seconds of samples for a question that goes by them, also those of a
    group that an earlier run finished.
    """

    key: str
    cases: tuple[Case, ...]
    effort: Effort | None = None
    left_out: str = ""
    took: list[float] = field(default_factory=list)
