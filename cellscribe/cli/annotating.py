"""What ``annotate`` does, step by step: check, open, run, write, show."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cellscribe.cli.console import notes
from cellscribe.cli.options import bundle_folder
from cellscribe.cli.progress import progress_bar
from cellscribe.cli.work import check_destinations, finish, rows_of
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.cells import CellSource, open_cells
from cellscribe.engine.labels import Labels, read_labels
from cellscribe.engine.output.fields import check_key
from cellscribe.engine.output.files import write_run
from cellscribe.engine.text_annotate import annotate_cells
from cellscribe.engine.text_model import TextModel
from cellscribe.engine.text_types import TextSettings


@dataclass(frozen=True)
class AnnotateJob:
    """One call of ``annotate``."""

    cells: Path
    bundle: str
    output: Path
    labels: Path | None
    settings: TextSettings
    templates: Path | None = None
    max_new_tokens: int = 32
    batch_size: int = 32
    layer: str | None = None
    values: Literal["auto", "counts", "lognorm"] = "auto"
    limit: int | None = None
    key_added: str = "cellscribe"
    backend: str = "auto"
    threads: int | None = None
    is_quiet: bool = False
    all_scores: bool = False


def annotate_file(job: AnnotateJob) -> int:
    """Label the cells of a file, write the result, and return the exit code."""
    check_key(job.key_added)
    check_destinations(job.cells, job.output, None, None)
    labels = None if job.labels is None else read_labels(job.labels)
    model = TextModel(open_bundle(bundle_folder(job.bundle)), job.threads, job.backend, job.templates, job.settings)
    with open_cells(job.cells, layer=job.layer, values=job.values) as source:
        rows = rows_of(source, (), job.limit)
        notes(facts(model, source, len(rows), labels), job.is_quiet)
        started = time.perf_counter()
        with progress_bar("annotating", job.is_quiet) as bar:
            run = annotate_cells(
                model,
                source,
                rows=rows,
                labels=labels,
                all_scores=job.all_scores,
                max_new_tokens=job.max_new_tokens,
                batch_size=job.batch_size,
                progress=bar,
            )
        seconds = time.perf_counter() - started
    write_run(run, job.output, job.cells, job.key_added)
    return finish(run, seconds, [job.output], job.is_quiet)


def facts(
    model: TextModel, source: CellSource, num_rows: int, labels: Labels | None = None
) -> Iterator[tuple[str, str]]:
    """Say what is about to run: device, bundle, cells, values, labels."""
    yield "device", model.device
    yield "bundle", f"{model.bundle.name} ({model.bundle.manifest.family}, {model.bundle.manifest.precision})"
    yield "cells", f"{num_rows:,} of {source.name}, sentences of {model.num_genes} genes"
    yield "values", source.value_note
    if labels is not None:
        yield "labels", f"{len(labels.names):,}"
