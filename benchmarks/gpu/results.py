"""What a run found, written at once: one file a part, and all parts together in the result file.

A part writes after every row, under a temporary name that is renamed, so that a run which is cut off loses nothing.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]
RUNNING, OK, FAILED, SKIPPED, CUT = "running", "ok", "failed", "skipped", "cut off"


@dataclass(frozen=True)
class Store:
    """Where results go: `parts` holds one file a part, `target` all of them, `head` what is said of the whole run."""

    parts: Path
    target: Path
    head: Path

    @classmethod
    def of(cls, work: Path, target: Path) -> Store:
        """Keep the parts in the working folder."""
        return cls(work / "parts", target, work / "head.json")

    def read(self, part: str) -> Row:
        """Return what a part has written so far; empty before it began."""
        path = self.parts / f"{part}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def write(self, part: str, found: Row) -> None:
        """Keep what a part found, and put all parts together anew."""
        self.parts.mkdir(parents=True, exist_ok=True)
        write_json(self.parts / f"{part}.json", found)
        self.gather()

    def begin(self, head: Row) -> None:
        """Start a new run: forget the parts of the last."""
        self.parts.mkdir(parents=True, exist_ok=True)
        for old in self.parts.glob("*.json"):
            old.unlink()
        write_json(self.head, head)
        self.gather()

    def gather(self) -> Row:
        """Write the result file from the parts there are."""
        head = json.loads(self.head.read_text(encoding="utf-8")) if self.head.is_file() else {}
        parts = {path.stem: self.read(path.stem) for path in sorted(self.parts.glob("*.json"))}
        whole = {**head, "parts": parts}
        write_json(self.target, whole)
        return whole


@dataclass
class Section:
    """What one part finds, row by row; every row is printed and written when it is added."""

    store: Store
    name: str
    facts: Row = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    def say(self, line: str) -> None:
        """Print a line."""
        print(f"[{self.name}] {line}", flush=True)

    def fact(self, **facts: Any) -> None:
        """Add figures of the whole part."""
        self.facts |= facts
        for name, value in facts.items():
            self.say(f"{name}: {told(value)}")
        self.save(RUNNING)

    def row(self, **row: Any) -> None:
        """Add a row."""
        self.rows.append(row)
        self.say(line_of(row))
        self.save(RUNNING)

    def save(self, status: str, why: str = "") -> None:
        """Write what there is."""
        found = {"status": status, "seconds": round(time.perf_counter() - self.started, 1)}
        why_row = {"why": why} if why else {}
        self.store.write(self.name, {**found, **why_row, **self.facts, "rows": self.rows})


def write_json(path: Path, value: Any) -> None:
    """Write a file as a whole: under another name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def line_of(row: Row) -> str:
    """Say a row in one line: figures with three digits, long values left out."""
    shown = {k: v for k, v in row.items() if not isinstance(v, dict | list)}
    return "  ".join(f"{name} {figure(value)}" for name, value in shown.items())


def told(value: Any) -> str:
    """Say a figure, or figures within figures, in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {told(one)}" for name, one in value.items())
    if isinstance(value, list):
        return "; ".join(map(told, value)) or "none"
    return figure(value)


def figure(value: Any) -> str:
    """Write a value for a table."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def rounded(value: float, digits: int = 4) -> float:
    """Round to significant digits."""
    return float(f"{value:.{digits}g}")
