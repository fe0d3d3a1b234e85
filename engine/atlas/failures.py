"""Why cells of a run failed, reasons that are alike told as one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from cellscribe.engine.output.run import count

_QUOTED = r"(?<!\w)'[^']*'|\"[^\"]*\""
_NUMBER = r"(?<![\w.])-?(?:\d[\d,.]*(?:e[+-]?\d+)?|inf|nan)(?!\w)"
_DIFFERING = re.compile(f"{_QUOTED}|{_NUMBER}", re.IGNORECASE)
_NUM_REASONS, _NUM_NAMES = 20, 5


class Failures:
    """Counts reasons as they come; those that differ in numbers and quoted names alone are one."""

    def __init__(self) -> None:
        self._cells: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        self._varied: set[str] = set()
        self._names: dict[str, list[str]] = {}

    def add(self, name: str, status: str) -> None:
        """Note why a cell failed."""
        why = status.removeprefix("failed: ")
        kind = _DIFFERING.sub("#", why)
        self._cells[kind] += 1
        if self._first.setdefault(kind, why) != why:
            self._varied.add(kind)
        if len(shown := self._names.setdefault(kind, [])) < _NUM_NAMES:
            shown.append(name)

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Give reason, cells and some of their names, the commonest first, and how many reasons are left out."""
        ordered = self._cells.most_common()
        for kind, number in ordered[:_NUM_REASONS]:
            why = self._first[kind] + (", and others like it" if kind in self._varied else "")
            yield why, f"{number:,}", ", ".join(self._names[kind]) + (", ..." if number > _NUM_NAMES else "")
        if rest := ordered[_NUM_REASONS:]:
            yield f"and {count(len(rest), 'other reason')}", f"{sum(number for _, number in rest):,}", ""
