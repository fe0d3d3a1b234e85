"""How far a run is: figures for the terminal, ``progress.json`` for other tools, and Prometheus text."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cellscribe.engine.atlas.manifest import ShardRecord
from cellscribe.engine.atlas.meter import STAGES, together

_RECENT_SECONDS = 60.0
_NUM_POINTS = 2000


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment: counts and shares since its beginning, rates and `elapsed` of the present call.

    What was not measured is None.
    """

    state: str
    cells: int
    total: int
    failed: int
    shared: int
    tokens: int
    shards: int
    total_shards: int
    elapsed: float
    cells_per_second: float
    tokens_per_second: float
    seconds_left: float | None
    utilisation: Mapping[str, float | None]
    seconds: Mapping[str, float | None]
    padding: float | None
    idle_slots: float | None
    workers: int
    elapsed_before: float
    figures: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return what ``progress.json`` holds."""
        return {
            "state": self.state, "cells_done": self.cells, "cells_total": self.total,
            "cells_left": self.total - self.cells, "cells_failed": self.failed,
            "cells_shared": self.shared, "tokens": self.tokens, "shards_done": self.shards,
            "shards_total": self.total_shards, "elapsed_seconds": round(self.elapsed_before + self.elapsed, 1),
            "cells_per_second": round(self.cells_per_second, 2), "tokens_per_second": round(self.tokens_per_second, 1),
            "seconds_left": _rounded(self.seconds_left, 1),
            "stage_utilisation": {name: _rounded(one, 4) for name, one in self.utilisation.items()},
            "stage_seconds": {name: _rounded(one, 2) for name, one in self.seconds.items()},
            "padding_share": _rounded(self.padding, 4), "idle_slot_share": _rounded(self.idle_slots, 4),
            "workers": self.workers, "updated": round(time.time(), 1), "figures": dict(self.figures),
        }  # fmt: skip


def _rounded(number: float | None, digits: int) -> float | None:
    return None if number is None else round(number, digits)


class Progress:
    """Puts together what workers tell.

    Parameters
    ----------
    total, total_shards
        Cells and shards of the whole run.
    done
        Records of shards that were there before.
    before
        What ``progress.json`` said when the run was cut off; its figures are carried on.
    """

    def __init__(
        self,
        total: int,
        total_shards: int,
        done: Mapping[int, ShardRecord],
        *,
        state: str = "running",
        before: Mapping[str, Any] | None = None,
    ) -> None:
        self._total, self._total_shards = total, total_shards
        self._before = sum(one.n_cells for one in done.values())
        self._tokens_before = sum(one.n_tokens for one in done.values())
        self._failed_before = sum(one.n_failed for one in done.values())
        self._earlier: Mapping[str, Any] = (before or {}).get("figures", {})
        self._elapsed_before = float((before or {}).get("elapsed_seconds", 0.0))
        self.records = dict(done)
        self._figures: dict[str, dict[str, Any]] = {}
        self._old: list[dict[str, Any]] = []  # of workers that were replaced
        self._started = time.perf_counter()
        self.points: list[tuple[float, int, int]] = []  # seconds, cells, tokens; evenly over the whole run
        self._apart = 0.5  # seconds
        self.state = state

    def add(self, record: ShardRecord) -> None:
        """Take a finished shard."""
        self.records[record.number] = record

    def tell(self, worker: str, figures: dict[str, Any]) -> None:
        """Take a worker's figures."""
        known = self._figures.get(worker)
        if known is not None and figures["elapsed"] < known["elapsed"]:
            self._old.append(known)
        self._figures[worker] = figures

    def figures(self) -> dict[str, Any]:
        """Return the figures of all workers, added up."""
        return together([*self._old, *self._figures.values()])

    def _note(self, point: tuple[float, int, int]) -> None:
        """Keep a point; of too many, every other one."""
        if self.points and point[0] - self.points[-1][0] < self._apart and self.state == "running":
            return
        self.points.append(point)
        if len(self.points) > _NUM_POINTS:
            self.points, self._apart = self.points[::2], 2 * self._apart

    def now(self) -> Snapshot:
        """Return where the run is."""
        figures, elapsed = self.figures(), time.perf_counter() - self._started
        finished = sum(one.n_cells for one in self.records.values())
        cells = min(self._total, max(finished, self._before + int(figures.get("cells", 0))))
        if self.state == "finished":
            cells = finished
        tokens, failed = int(figures.get("tokens", 0)), self._failed_before + int(figures.get("failed", 0))
        self._note((elapsed, cells, tokens))
        since = (0.0, self._before, 0)
        if self.state == "running":  # the last minute, or as near to it as points lie
            since = next((one for one in reversed(self.points) if elapsed - one[0] >= _RECENT_SECONDS), since)
        spent = elapsed - since[0]
        rate = (cells - since[1]) / spent if spent > 0 else 0.0
        whole = together([self._earlier, figures])
        worked, seconds = float(whole.get("elapsed", 0.0)), whole.get("seconds", {})
        places, slots = int(whole.get("places", 0)), int(whole.get("slot_steps", 0))
        return Snapshot(
            state=self.state,
            cells=cells,
            total=self._total,
            failed=max(sum(one.n_failed for one in self.records.values()), failed),
            shared=int(whole.get("shared", 0)),
            tokens=self._tokens_before + tokens,
            shards=len(self.records),
            total_shards=self._total_shards,
            elapsed=elapsed,
            cells_per_second=rate,
            tokens_per_second=(tokens - since[2]) / spent if spent > 0 else 0.0,
            seconds_left=(self._total - cells) / rate if rate > 0 else None,
            utilisation={name: seconds[name] / worked if worked and name in seconds else None for name in STAGES},
            seconds={name: seconds.get(name) for name in STAGES},
            padding=1.0 - whole.get("real_places", 0) / places if places else None,
            idle_slots=whole.get("empty_steps", 0) / slots if slots else None,
            workers=len(self._figures),
            elapsed_before=self._elapsed_before,
            figures=whole,
        )


def progress_text(snapshot: Snapshot) -> str:
    """Return the text of ``progress.json``."""
    return json.dumps(snapshot.as_dict(), indent=1) + "\n"


def prometheus(snapshot: Snapshot) -> str:
    """Return the figures in Prometheus' text format, for the textfile collector of its node exporter."""
    told = snapshot.as_dict()
    names = {
        "cells_done": ("counter", "Cells with a result, failed ones included."),
        "cells_total": ("gauge", "Cells of the run."),
        "cells_failed": ("counter", "Cells that failed."),
        "cells_shared": ("counter", "Cells whose input was computed before."),
        "tokens": ("counter", "Tokens written."),
        "shards_done": ("counter", "Shards written."),
        "shards_total": ("gauge", "Shards of the run."),
        "cells_per_second": ("gauge", "Cells a second over the last minute."),
        "tokens_per_second": ("gauge", "Tokens a second over the last minute."),
        "seconds_left": ("gauge", "Seconds left at this rate."),
        "padding_share": ("gauge", "Share of the encoder's places that hold no token."),
        "idle_slot_share": ("gauge", "Share of the decoder's places that stood empty though cells were left."),
        "workers": ("gauge", "Workers."),
    }
    lines = []
    for name, (kind, text) in names.items():
        if told[name] is not None:
            full = f"cellscribe_atlas_{name}" + ("_total" if kind == "counter" else "")
            lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}", f"{full} {told[name]}"]
    full = "cellscribe_atlas_stage_utilisation"
    lines += [f"# HELP {full} Share of the workers' time by stage.", f"# TYPE {full} gauge"]
    lines += [
        f'{full}{{stage="{stage}"}} {share}' for stage, share in told["stage_utilisation"].items() if share is not None
    ]
    return "\n".join(lines) + "\n"
