"""What ``annotate`` does, step by step: check, open, run, write, show."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

from cellscribe.cli.annotate_job import AnnotateJob, asked_by, check_options
from cellscribe.cli.console import notes
from cellscribe.cli.instructing import instruct_facts
from cellscribe.cli.options import bundle_folder
from cellscribe.cli.progress import Report, progress_bar
from cellscribe.cli.work import check_destinations, finish, kept_if_it_fails, rows_of
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.cells import CellSource, open_cells
from cellscribe.engine.instruct.annotate import annotate_cells as annotate_by_instruction
from cellscribe.engine.instruct_model import InstructModel
from cellscribe.engine.labels import Labels, with_definitions
from cellscribe.engine.labels_file import read_labels
from cellscribe.engine.output.fields import check_key
from cellscribe.engine.output.files import write_run
from cellscribe.engine.output.run import Run, count
from cellscribe.engine.rank_model import RankModel, Rows
from cellscribe.engine.sentences.known import gene_report
from cellscribe.engine.text_annotate import annotate_cells
from cellscribe.engine.text_model import TextModel

Annotate: TypeAlias = Callable[[Report | None], Run]


def annotate_file(job: AnnotateJob) -> int:
    """Label the cells of a file, write the result, and return the exit code."""
    check_key(job.key_added)
    report = job.afterwards.report
    check_destinations(job.cells, job.output, report, None)
    finish_labels = job.afterwards.finish()
    labels = None if job.labels is None else read_labels(job.labels)
    bundle = open_bundle(bundle_folder(job.bundle))
    check_options(job, bundle, labels)
    with open_cells(job.cells, layer=job.layer, values=job.values) as source:
        rows = rows_of(source, (), job.limit)
        finish_labels.check(source, has_vectors=bundle.manifest.ranks is not None)
        annotate = _way_of(bundle)(job, bundle, source, rows, labels)
        started = time.perf_counter()
        with progress_bar("annotating", job.is_quiet) as bar:
            run = annotate(bar)
        seconds = time.perf_counter() - started
        with kept_if_it_fails(run, job.output, job.cells, job.key_added):
            run = finish_labels.voted(run, source)
        write_run(run, job.output, job.cells, job.key_added)
        finish_labels.write(run, source)
    return finish(run, seconds, [job.output, report], job.is_quiet)


def _way_of(bundle: Bundle) -> Callable[[AnnotateJob, Bundle, CellSource, Rows, Labels | None], Annotate]:
    if bundle.manifest.instruct is not None:
        return _following
    return _matching if bundle.manifest.ranks is not None else _writing


def _following(job: AnnotateJob, bundle: Bundle, source: CellSource, rows: Rows, labels: Labels | None) -> Annotate:
    """Say what is about to run, and return what asks a model by instruction."""
    asked = asked_by(job)
    model = InstructModel(bundle, job.threads, job.backend, job.templates, job.plans, asked.task)
    notes(instruct_facts(model, source, len(rows), labels), job.is_quiet)
    return lambda bar: annotate_by_instruction(
        model,
        source,
        rows=rows,
        labels=labels,
        asked=asked,
        all_scores=job.all_scores,
        in_words=job.following.in_words,
        max_new_tokens=job.max_new_tokens or 64,
        batch_size=job.batch_size,
        progress=bar,
    )


def _writing(job: AnnotateJob, bundle: Bundle, source: CellSource, rows: Rows, labels: Labels | None) -> Annotate:
    """Say what is about to run, and return what lets a model write labels."""
    model = TextModel(bundle, job.threads, job.backend, job.templates, job.settings, job.plans)
    notes(facts(model, source, len(rows), labels), job.is_quiet)
    return lambda bar: annotate_cells(
        model,
        source,
        rows=rows,
        labels=labels,
        all_scores=job.all_scores,
        max_new_tokens=job.max_new_tokens or 32,
        batch_size=job.batch_size,
        progress=bar,
    )


def _matching(job: AnnotateJob, bundle: Bundle, source: CellSource, rows: Rows, labels: Labels | None) -> Annotate:
    """Say what is about to run, and return what matches labels with cells."""
    assert labels is not None
    model = RankModel(bundle, job.threads, job.backend, job.plans)
    chosen, given = with_definitions(labels, job.matching.has_definitions), job.matching
    notes([*rank_facts(model, source, len(rows)), ("labels", f"{len(labels.names):,}")], job.is_quiet)
    return lambda bar: model.annotate_cells(
        source, chosen, rows=rows, how=given.how, threshold=given.threshold, template=given.template, progress=bar
    )


def rank_facts(model: RankModel, source: CellSource, num_rows: int) -> Iterator[tuple[str, str]]:
    """Say what is about to run: device, bundle, cells, values, genes."""
    yield "device", model.device
    yield "bundle", f"{model.bundle.name} ({model.bundle.manifest.family}, {model.bundle.manifest.precision})"
    yield "cells", f"{num_rows:,} of {source.name}"
    yield "values", source.value_note
    yield "genes", model.tokenizer(source).report.sentence()


def facts(
    model: TextModel, source: CellSource, num_rows: int, labels: Labels | None = None
) -> Iterator[tuple[str, str]]:
    """Say what is about to run: device, bundle, cells, values, labels."""
    yield "device", model.device
    yield "bundle", f"{model.bundle.name} ({model.bundle.manifest.family}, {model.bundle.manifest.precision})"
    yield "cells", f"{num_rows:,} of {source.name}, sentences of {count(model.num_genes, 'gene')}"
    yield "values", source.value_note
    said = gene_report(source, model.settings.organism).get("sentence")
    if said:
        yield "genes", str(said)
    if labels is not None:
        yield "labels", f"{len(labels.names):,}"
