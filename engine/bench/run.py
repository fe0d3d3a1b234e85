"""Questions put to contenders: group by group, with the ceilings measured in between."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from cellscribe.engine.bench.case import Group
from cellscribe.engine.bench.clock import Effort, interleave
from cellscribe.engine.bench.contender import Contender
from cellscribe.engine.bench.hardware import peak_memory_bytes, reset_peak_memory
from cellscribe.engine.bench.progress import Silent, Watcher
from cellscribe.engine.bench.questions import Question
from cellscribe.engine.bench.results import Results
from cellscribe.engine.bench.row import Row
from cellscribe.engine.bench.settings import Settings
from cellscribe.engine.errors import BackendError, InputError

_SILENT = Silent()
_STALE_SECONDS = 5.0


def ask(
    questions: Sequence[Question],
    contenders: Sequence[Contender],
    settings: Settings,
    results: Results,
    watcher: Watcher = _SILENT,
) -> None:
    """Answer questions; rows are in the results, and on the disk, as soon as their group is finished.

    Groups that the results hold already are left out. The roofline is measured before the first question, after each
    that took its time, and at the end.
    """
    results.roofline.measure(is_quick=bool(results.finished))
    measured_at, is_new = time.monotonic(), False
    for question in questions:
        for group in question.groups(contenders, settings):
            if group.key in results.finished:
                group.took.extend(_seconds_of(group, results.rows))
                continue
            if group.left_out:
                results.skip(group.key, group.left_out)
                watcher.on_skip(group.key, group.left_out)
                continue
            watcher.on_group(question.name, group.key)
            try:
                rows = measured(group, settings.effort, watcher)
            except (BackendError, InputError, MemoryError) as error:
                why = str(error) or "there is too little memory."
                results.skip(group.key, why)
                watcher.on_skip(group.key, why)
                continue
            results.add(group.key, rows)
            watcher.on_rows(results.judged()[-len(rows) :])
            is_new = True
        if is_new and (time.monotonic() - measured_at > _STALE_SECONDS or question is questions[-1]):
            results.roofline.measure(is_quick=True)
            results.write()
            measured_at, is_new = time.monotonic(), False


def _seconds_of(group: Group, rows: Sequence[Row]) -> Iterator[float]:
    """Give the samples of a group that an earlier run finished."""
    for row in rows:
        if any(row.question == one.row.question and row.sizes == one.row.sizes for one in group.cases):
            yield from (sample for samples in row.rounds for sample in samples)


def measured(group: Group, effort: Effort, watcher: Watcher = _SILENT) -> tuple[Row, ...]:
    """Time the cases of a group in interleaved rounds."""
    reset_peak_memory()
    calls = [case.open() for case in group.cases]
    found = interleave(calls, group.effort or effort, watcher.on_round)
    peak = peak_memory_bytes()
    return tuple(
        replace(
            case.row,
            rounds=tuple(one.rounds),
            latency_ms=tuple(one.latency_ms),
            peak_memory_bytes=peak,
            work=one.work or case.row.work,
        )
        for case, one in zip(group.cases, found, strict=True)
    )
