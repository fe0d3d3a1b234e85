"""One measurement: what was timed, for how long, and how near that is to what the machine can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np

from cellscribe.engine.bench.ceilings import Ceilings
from cellscribe.engine.bench.work import Work
from cellscribe.engine.errors import InputError, UsageError

Unit = Literal["tokens", "cells"]
Rounds = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Spread:
    """Where samples lie, in the unit of the samples."""

    least: float
    lower: float  # quartile
    median: float
    upper: float  # quartile
    most: float

    @property
    def interquartile_range(self) -> float:
        """Width of the middle half."""
        return self.upper - self.lower

    @classmethod
    def of(cls, samples: tuple[float, ...]) -> Spread:
        """Summarise samples; NaN without any."""
        if not samples:
            return cls(*[float("nan")] * 5)
        return cls(*(float(one) for one in np.quantile(samples, (0, 0.25, 0.5, 0.75, 1))))


@dataclass(frozen=True)
class Row:
    """One measurement of one engine.

    Parameters
    ----------
    question, what, who
        The question it answers, what a sample times, and which engine did it.
    sizes
        Slots, new_tokens, memory_len, prompt_len, cells, capacity and the like.
    precision, threads
        Of the engine; `threads` is 0 where the CPU does not compute.
    unit, units
        What a sample makes, and how many of it.
    rounds
        Seconds of the samples, round by round: samples of one round follow each other closely and are not independent.
    latency_ms
        Milliseconds from a cell's admission to its last token, one per cell, where whole texts were written.
    work
        Bytes and operations that one sample cannot do without.
    ceilings
        What the machine can do; None where it was not measured, as on a GPU.
    peak_memory_bytes
        Most memory that the process held while this row and those interleaved with it were measured.
    fits_in_cache
        Whether the bytes fit into the processor's last cache, so that memory bandwidth is no ceiling.
    """

    question: str
    what: str
    who: str
    sizes: Mapping[str, int]
    precision: str
    threads: int
    unit: Unit
    units: float
    rounds: Rounds = ()
    latency_ms: tuple[float, ...] = ()
    work: Work | None = None
    ceilings: Ceilings | None = None
    peak_memory_bytes: int | None = None
    fits_in_cache: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise UsageError(f"a row counts {self.unit!r}; choose one of {', '.join(get_args(Unit))}.")
        if not self.units > 0:
            raise UsageError(f"a row of {self.question} makes {self.units:g} {self.unit} a sample; give more than 0.")
        if not all(seconds > 0 for seconds in self.samples):
            raise UsageError(f"a row of {self.question} has a sample of no time; time more work at once.")

    @property
    def samples(self) -> tuple[float, ...]:
        """Seconds of all samples."""
        return tuple(seconds for one in self.rounds for seconds in one)

    @property
    def spread(self) -> Spread:
        """Where the samples lie, in seconds."""
        return Spread.of(self.samples)

    @property
    def median(self) -> float:
        """Median seconds of a sample; NaN without samples."""
        return self.spread.median

    @property
    def units_per_s(self) -> float:
        """Tokens or cells a second."""
        return self.units / self.median

    def latency(self, percent: float) -> float | None:
        """Return a percentile of the milliseconds per cell; None where no texts were written."""
        return float(np.percentile(self.latency_ms, percent)) if self.latency_ms else None

    @property
    def gigabytes_per_s(self) -> float | None:
        """Necessary bytes over the median, in 10⁹ a second."""
        return self.work.bytes / self.median / 1e9 if self.work else None

    @property
    def gigaflops_per_s(self) -> float | None:
        """Necessary operations over the median, in 10⁹ a second."""
        return self.work.flops / self.median / 1e9 if self.work else None

    @property
    def bound_seconds(self) -> float | None:
        """Least seconds that the machine needs for a sample."""
        return self.ceilings.seconds(self.work) if self.work and self.ceilings else None

    @property
    def percent_of_roofline(self) -> float | None:
        """Least seconds over the median, in percent."""
        return None if self.bound_seconds is None else 100 * self.bound_seconds / self.median

    @property
    def percent_of_bandwidth(self) -> float | None:
        """Share of the memory bandwidth that the necessary bytes take, in percent."""
        if self.work is None or self.ceilings is None:
            return None
        return 100 * self.ceilings.bandwidth_seconds(self.work) / self.median

    @property
    def percent_of_matrix(self) -> float | None:
        """Share of the matrix rate that the necessary operations take, in percent."""
        if self.work is None or self.ceilings is None or not self.ceilings.matrix:
            return None
        return 100 * self.ceilings.matrix_seconds(self.work) / self.median

    def under(self, ceilings: Ceilings | None) -> Row:
        """Return the row judged by other ceilings."""
        return replace(self, ceilings=ceilings)

    def as_dict(self) -> dict[str, Any]:
        """Return the row for JSON, with what follows from it under ``derived``."""
        found = asdict(self)
        found["sizes"] = dict(self.sizes)
        found["rounds"] = [[round(seconds, 9) for seconds in one] for one in self.rounds]
        found["latency_ms"] = [round(one, 4) for one in self.latency_ms]
        found["derived"] = self._derived()
        return found

    def _derived(self) -> dict[str, float | None]:
        spread = self.spread
        found: dict[str, float | None] = {
            "median_s": spread.median,
            "lower_quartile_s": spread.lower,
            "upper_quartile_s": spread.upper,
            "least_s": spread.least,
            "most_s": spread.most,
            "num_samples": len(self.samples),
            f"{self.unit}_per_s": self.units_per_s,
            **{f"latency_p{percent}_ms": self.latency(percent) for percent in (50, 90, 99)},
            "gigabytes_per_s": self.gigabytes_per_s,
            "gigaflops_per_s": self.gigaflops_per_s,
            "bound_s": self.bound_seconds,
            "percent_of_roofline": self.percent_of_roofline,
            "percent_of_bandwidth": self.percent_of_bandwidth,
            "percent_of_matrix": self.percent_of_matrix,
        }
        return {name: None if value is None or value != value else _short(value) for name, value in found.items()}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any], source: object = "the results") -> Row:
        """Read a row back; InputError, which names the `source`, when something is missing or of another kind."""
        try:
            known = {one.name: found[one.name] for one in fields(cls)}
            known["sizes"] = {str(name): int(size) for name, size in known["sizes"].items()}
            known["rounds"] = tuple(tuple(float(seconds) for seconds in one) for one in known["rounds"])
            known["latency_ms"], known["notes"] = tuple(known["latency_ms"]), tuple(known["notes"])
            known["work"] = Work(**known["work"]) if known["work"] else None
            known["ceilings"] = Ceilings(**known["ceilings"]) if known["ceilings"] else None
            return cls(**known)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(f"a row of {source} is damaged ({why}); measure again without --resume.") from error


def _short(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.6g}")
