"""The ceilings of this machine, measured in the run they judge, again and again so that drift shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

from cellscribe.engine.bench.ceilings import Ceilings
from cellscribe.engine.bench.precision import NO_PRECISION, precision_named
from cellscribe.engine.bench.row import Spread
from cellscribe.engine.errors import BackendError, InputError

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_SECONDS = 300
_STEADY = 1.15
ALONE = 0.9  # share of its cores below which a measurement was shared with other work


@dataclass
class Roofline:
    """Rates by name (see :mod:`cellscribe.engine.bench.peaks`), one per measurement, all with `threads` threads.

    Rows are judged by the best of all measurements: what the machine did once, it can do. `busy` holds, for each
    measurement, the share of its cores that it had.
    """

    threads: int
    rates: dict[str, list[float]] = field(default_factory=dict)
    busy: list[float] = field(default_factory=list)

    def measure(self, *, is_quick: bool = False) -> None:
        """Measure once more, in a process of its own.

        Raises
        ------
        BackendError
            When that process fails.
        """
        environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(self.threads))}
        kind = "quick" if is_quick else "thorough"
        command = [sys.executable, "-m", "cellscribe.engine.bench.peaks", str(self.threads), kind]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, timeout=_SECONDS, check=True
            )
            self.add(json.loads(done.stdout))
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            said = str(getattr(error, "stderr", "") or error).strip().splitlines() or [type(error).__name__]
            raise BackendError(
                f"the roofline could not be measured ({said[-1]}); it needs 1.2 GB of free memory and five minutes."
            ) from error

    def add(self, rates: dict[str, float]) -> None:
        """Keep one measurement."""
        for name, rate in rates.items():
            found = self.busy if name == "busy" else self.rates.setdefault(name, [])
            found.append(float(rate))

    @property
    def bandwidth(self) -> float:
        """Bytes a second: the best of reading and of copying (read and write counted)."""
        return max((rate for name in ("read", "copy") for rate in self.rates.get(name, ())), default=float("nan"))

    def ceilings(self, precision: str) -> Ceilings | None:
        """Return the ceilings of a precision; None before the first measurement, and without a precision."""
        if not self.rates or precision == NO_PRECISION:
            return None
        named = precision_named(precision)
        return Ceilings(self.bandwidth, self._best(named.arithmetic), self._best(named.state_arithmetic))

    def _best(self, name: str) -> float | None:
        return max(self.rates.get(name, ()), default=None)

    def spread(self, name: str) -> Spread:
        """Where the measurements of a rate lie."""
        return Spread.of(tuple(self.rates.get(name, ())))

    @property
    def was_shared(self) -> bool:
        """Whether other work took cores during a measurement; then neither ceilings nor times can be trusted."""
        return min(self.busy, default=1.0) < ALONE

    @property
    def drifting(self) -> tuple[str, ...]:
        """Rates whose largest measurement is much above the smallest: other work ran, or the clock changed."""
        return tuple(name for name, found in self.rates.items() if max(found) > _STEADY * min(found))

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON: every measurement, in bytes and operations a second."""
        rates = {name: [float(f"{rate:.5g}") for rate in found] for name, found in self.rates.items()}
        busy = [round(one, 3) for one in self.busy]
        return {"threads": self.threads, "rates": rates, "busy": busy, "drifting": list(self.drifting)}

    @classmethod
    def from_dict(cls, found: dict[str, Any], source: object = "the results") -> Roofline:
        """Read it back; InputError, which names the `source`, when it is damaged."""
        try:
            rates = {str(name): [float(rate) for rate in rates] for name, rates in found["rates"].items()}
            return cls(int(found["threads"]), rates, [float(one) for one in found["busy"]])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"the roofline of {source} is damaged ({error!r}); measure again without --resume."
            ) from error
