"""From a bundle to contenders and results: what the command line and the suite of benchmarks both begin with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cellscribe.engine.backends.base import Backend
from cellscribe.engine.backends.choose import choose_backend, precision_of
from cellscribe.engine.backends.sessions import default_threads
from cellscribe.engine.bench.contender import Contender
from cellscribe.engine.bench.cost import Cost
from cellscribe.engine.bench.hardware import Hardware
from cellscribe.engine.bench.made_by import versions_with_library
from cellscribe.engine.bench.results import Results
from cellscribe.engine.bench.roofline import Roofline
from cellscribe.engine.bench.settings import Settings
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.cells import CellTokenizer, TokenBatch, open_cells
from cellscribe.engine.errors import InputError, UsageError
from cellscribe.engine.packaged import packaged_cells

NUM_CELLS = 16  # that contenders write about, over and over


def bench_cells(bundle: Bundle, path: Path | None = None) -> tuple[TokenBatch, Path]:
    """Return real cells as tokens, and their file; the packaged ones without a path.

    Raises
    ------
    InputError
        When they do not suit the bundle.
    """
    chosen = path or packaged_cells()
    try:
        with open_cells(chosen) as source:
            tokenizer = CellTokenizer(bundle.manifest.cell_input, bundle.vocabulary, source)
            rows = np.arange(min(NUM_CELLS, source.n_cells))
            batch = next(tokenizer.batches(rows=rows, batch_cells=NUM_CELLS))
    except InputError as error:
        if path is not None:
            raise
        raise InputError(
            f"the packaged cells do not suit the bundle {bundle.name}; give others with --cells ({error})"
        ) from error
    if not batch.n_cells:
        raise InputError(f"{chosen.name} has no usable cell among its first {NUM_CELLS}; give other cells.")
    return batch, chosen


def open_contender(
    bundle: Bundle,
    name: str = "auto",
    *,
    threads: int | None = None,
    plans: Path | None = None,
    cells: Path | None = None,
    hardware: Hardware | None = None,
) -> Contender:
    """Open one of the backends by name; see :func:`cellscribe.engine.backends.choose.choose_backend`."""
    choice = choose_backend(bundle, name, threads=threads, plans=plans)
    return contender_of(choice.name, bundle, choice.backend, threads=threads, cells=cells, hardware=hardware)


def contender_of(
    who: str,
    bundle: Bundle,
    backend: Backend,
    *,
    precision: str | None = None,
    threads: int | None = None,
    cells: Path | None = None,
    hardware: Hardware | None = None,
) -> Contender:
    """Let an opened backend take part.

    Parameters
    ----------
    who, bundle, backend
        See :class:`~cellscribe.engine.bench.contender.Contender`.
    precision
        Of the numbers it reads; its own word on it without.
    threads
        CPU threads that it was opened with; all of this process without.
    cells
        File of real cells; the packaged ones without.
    hardware
        The machine, where it was looked at already.
    """
    batch, path = bench_cells(bundle, cells)
    is_cpu = backend.device.startswith("CPU")
    found = precision or precision_of(bundle, backend)
    cache = (hardware or Hardware.here()).last_cache_bytes if is_cpu else 0
    used = (threads or default_threads()) if is_cpu else 0
    return Contender(who, bundle, backend, batch, path, found, used, Cost.of(bundle.manifest, found, cache))


def results_of(
    folder: Path,
    contenders: Sequence[Contender],
    settings: Settings,
    command: str,
    hardware: Hardware,
    *,
    threads: int | None = None,
) -> Results:
    """Return empty results for contenders of one bundle.

    Raises
    ------
    UsageError
        Without contenders.
    """
    if not contenders:
        raise UsageError("nothing takes part in the benchmark; name at least one engine.")
    first = contenders[0]
    head = {
        "command": command,
        "bundle": {"name": first.bundle.name, "hash": first.bundle.hash},
        "settings": settings.as_dict(),
        "machine": hardware.line(),
        "hardware": hardware.as_dict(),
        "contenders": [
            {"who": one.who, "device": one.backend.device, "precision": one.precision, "threads": one.threads}
            for one in contenders
        ],
        "versions": versions_with_library(),
        "cells": first.cells_file.name,
    }
    return Results(folder, head, Roofline(threads or max(one.threads for one in contenders) or default_threads()))
