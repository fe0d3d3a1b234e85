"""What ``annotate`` does, step by step: check, open, run, write, show."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from cellscribe.cli.console import notes
from cellscribe.cli.instructing import asked_of, instruct_facts, refuse_sentences
from cellscribe.cli.options import bundle_folder, pairs
from cellscribe.cli.progress import Report, progress_bar
from cellscribe.cli.work import check_destinations, finish, kept_if_it_fails, rows_of
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.cells import CellSource, open_cells
from cellscribe.engine.errors import UsageError
from cellscribe.engine.instruct.annotate import annotate_cells as annotate_by_instruction
from cellscribe.engine.instruct.annotate import check_wishes
from cellscribe.engine.instruct_model import InstructModel
from cellscribe.engine.labelling.finish import Finish, finish_of
from cellscribe.engine.labelling.markers import read_markers
from cellscribe.engine.labels import Labels, with_definitions
from cellscribe.engine.labels_file import read_labels
from cellscribe.engine.matching.zero_shot import ZeroShot
from cellscribe.engine.output.fields import check_key
from cellscribe.engine.output.files import write_run
from cellscribe.engine.output.run import Run
from cellscribe.engine.rank_model import TEMPLATE, RankModel, Rows
from cellscribe.engine.sentences.known import gene_report
from cellscribe.engine.text_annotate import annotate_cells
from cellscribe.engine.text_model import TextModel
from cellscribe.engine.text_types import TextSettings

Annotate: TypeAlias = Callable[[Report | None], Run]


@dataclass(frozen=True)
class Matching:
    """Options of bundles that match texts with cells."""

    how: ZeroShot = field(default_factory=ZeroShot)
    has_definitions: bool = False
    threshold: float = 0.0
    template: str = TEMPLATE


@dataclass(frozen=True)
class Following:
    """Options of bundles that follow instructions."""

    task: str | None = None
    instruction: str | None = None
    pairs: tuple[str, ...] = ()
    in_words: bool = False


@dataclass(frozen=True)
class Afterwards:
    """Options of what is made of the labels."""

    majority_vote: str | None = None
    min_share: float = 0.0
    report: Path | None = None
    truth: str | None = None
    markers: Path | None = None

    def finish(self) -> Finish:
        """Put the options together; UsageError for one that needs another one."""
        genes = None if self.markers is None else read_markers(self.markers)
        return finish_of(
            majority_vote=self.majority_vote,
            min_share=self.min_share,
            report=self.report,
            truth=self.truth,
            markers=genes,
            markers_from=str(self.markers),
        )


@dataclass(frozen=True)
class AnnotateJob:
    """One call of ``annotate``."""

    cells: Path
    bundle: str
    output: Path
    labels: Path | None
    settings: TextSettings
    templates: Path | None = None
    max_new_tokens: int | None = None
    batch_size: int = 32
    layer: str | None = None
    values: Literal["auto", "counts", "lognorm"] = "auto"
    limit: int | None = None
    key_added: str = "cellscribe"
    backend: str = "auto"
    threads: int | None = None
    is_quiet: bool = False
    all_scores: bool = False
    matching: Matching = field(default_factory=Matching)
    afterwards: Afterwards = field(default_factory=Afterwards)
    plans: Path | None = None
    following: Following = field(default_factory=Following)
    template: str | None = None


def annotate_file(job: AnnotateJob) -> int:
    """Label the cells of a file, write the result, and return the exit code."""
    check_key(job.key_added)
    report = job.afterwards.report
    check_destinations(job.cells, job.output, report, None)
    finish_labels = job.afterwards.finish()
    labels = None if job.labels is None else read_labels(job.labels)
    bundle = open_bundle(bundle_folder(job.bundle))
    if bundle.manifest.instruct is not None:
        check_wishes(labels is not None, job.all_scores, job.following.in_words)
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


def _refuse(job: AnnotateJob, bundle: Bundle, *, matching: bool = True, following: bool = True) -> None:
    """Raise UsageError for options of other families."""
    if matching and job.matching != Matching():
        raise UsageError(
            f"--alpha, --rerank, --definitions, --unknown-below and --text-template match texts with cells, which "
            f"the bundle {bundle.name} does not; leave them out, or choose a bundle of the family langcell."
        )
    if following and job.following != Following():
        raise UsageError(
            f"--task, --instruction, --set and --in-words are for bundles that follow instructions, and {bundle.name} "
            f"{bundle.manifest.reading}; leave them out, or choose a bundle of the family instructcell."
        )


def _following(job: AnnotateJob, bundle: Bundle, source: CellSource, rows: Rows, labels: Labels | None) -> Annotate:
    """Say what is about to run, and return what asks a model by instruction."""
    _refuse(job, bundle, following=False)
    refuse_sentences(bundle, job.settings)
    given = job.following
    asked = asked_of(given.instruction, given.task, pairs(given.pairs), job.template, job.settings.seed)
    model = InstructModel(bundle, job.threads, job.backend, job.templates, job.plans, asked.task)
    notes(instruct_facts(model, source, len(rows), labels), job.is_quiet)
    return lambda bar: annotate_by_instruction(
        model,
        source,
        rows=rows,
        labels=labels,
        asked=asked,
        all_scores=job.all_scores,
        in_words=given.in_words,
        max_new_tokens=job.max_new_tokens or 64,
        batch_size=job.batch_size,
        progress=bar,
    )


def _writing(job: AnnotateJob, bundle: Bundle, source: CellSource, rows: Rows, labels: Labels | None) -> Annotate:
    """Say what is about to run, and return what lets a model write labels."""
    _refuse(job, bundle)
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
    _refuse(job, bundle, matching=False)
    if labels is None:
        raise UsageError(f"the bundle {bundle.name} chooses from labels; give --labels (.txt, .tsv, .json or .obo).")
    if job.all_scores or job.max_new_tokens is not None or job.batch_size != AnnotateJob.batch_size:
        raise UsageError(
            f"--scores, --max-new-tokens and --batch-size are for bundles that write labels, and {bundle.name} matches "
            "them (all scores are written anyway); leave them out."
        )
    if job.templates is not None or job.settings != TextSettings():
        raise UsageError(
            f"--organism, --genes-per-cell, --templates, --template and --seed write sentences, which the bundle "
            f"{bundle.name} does not read; leave them out (--text-template is for texts of labels)."
        )
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
    yield "cells", f"{num_rows:,} of {source.name}, sentences of {model.num_genes} genes"
    yield "values", source.value_note
    said = gene_report(source, model.settings.organism).get("sentence")
    if said:
        yield "genes", str(said)
    if labels is not None:
        yield "labels", f"{len(labels.names):,}"
