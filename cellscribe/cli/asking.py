"""What ``ask`` does, step by step: check, open, ask, write, show."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import typer

from cellscribe.cli.console import error_console, notes
from cellscribe.cli.guard import SOME_FAILED
from cellscribe.cli.instructing import asked_of, instruct_facts, refuse_sentences
from cellscribe.cli.options import bundle_folder, pairs
from cellscribe.cli.progress import Report, progress_bar
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.cells import CellSource, open_cells
from cellscribe.engine.errors import UsageError
from cellscribe.engine.instruct.asking import AskSettings
from cellscribe.engine.instruct.templates import instructions_with
from cellscribe.engine.instruct_model import InstructModel
from cellscribe.engine.labels_file import read_labels
from cellscribe.engine.output.atomic import replacing
from cellscribe.engine.output.files import check_output
from cellscribe.engine.output.run import count, reasons_of
from cellscribe.engine.output.text import printable
from cellscribe.engine.questions import Question, answers_frame, ask, check_question
from cellscribe.engine.sentences.known import gene_report
from cellscribe.engine.sentences.templates import About, known_task, templates_with
from cellscribe.engine.text_model import TextModel
from cellscribe.engine.text_types import Answer, TextSettings
from cellscribe.engine.types import Sampling

_SUFFIXES = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Wanted:
    """A question, what its answers must be one of (None: they are free), and how their tokens are chosen."""

    question: Question
    labels: tuple[str, ...] | None
    sampling: Sampling


@dataclass(frozen=True)
class AskJob:
    """One call of ``ask``."""

    cells: Path
    bundle: str
    question: str | None
    task: str | None
    by: str | None
    group_cells: int
    pairs: tuple[str, ...]
    output: Path | None
    settings: TextSettings
    templates: Path | None = None
    max_new_tokens: int = 64
    batch_size: int = 8
    layer: str | None = None
    values: Literal["auto", "counts", "lognorm"] = "auto"
    limit: int | None = None
    backend: str = "auto"
    threads: int | None = None
    is_quiet: bool = False
    plans: Path | None = None
    template: str | None = None
    labels: Path | None = None
    temperature: float = 0.0
    top_p: float | None = None

    @property
    def cells_path(self) -> Path | None:
        """The file of cells; None where ``-`` stands for none."""
        return None if str(self.cells) == "-" else self.cells

    def open_bundle(self) -> Bundle:
        """Open the bundle; UsageError for none, and for options of bundles of the other kind."""
        if not self.bundle:
            raise UsageError("no bundle is named; give --bundle DIR, one that reads sentences or follows instructions.")
        bundle = open_bundle(bundle_folder(self.bundle))
        if bundle.manifest.instruct is not None:
            cells = None if self.group_cells == Question.group_cells else self.group_cells
            refuse_sentences(bundle, self.settings, ("--by", self.by), ("--cells", cells))
        return bundle

    def check(self) -> Wanted:
        """Return what is asked, and how; UsageError, InputError or OutputError for what cannot work."""
        fields = pairs(self.pairs)
        question = Question(self.question, self.task, self.by, self.group_cells, fields)
        if self.output is not None:
            check_output(self.output, self.cells_path, _SUFFIXES)
        sampling = Sampling.of(self.top_p, self.temperature, self.settings.seed)
        return Wanted(question, None if self.labels is None else read_labels(self.labels).names, sampling)


def ask_file(job: AskJob) -> int:
    """Ask about the cells of a file, write and show the answers, and return the exit code."""
    bundle = job.open_bundle()
    wanted = job.check()
    model: TextModel | InstructModel
    if bundle.manifest.instruct is not None:
        if job.cells_path is None:
            raise UsageError(f"{bundle.name} answers about cells, and none are given; name them in place of -.")
        asked = _asked(job, wanted.question)
        if asked.instruction is None:
            known_task(instructions_with(job.templates, asked.task), asked.task)
        model = InstructModel(bundle, job.threads, job.backend, job.templates, job.plans, job.task)
    else:
        if bundle.manifest.sentences is not None:
            _check_cells(job, check_question(wanted.question, templates_with(job.templates)))
        model = TextModel(bundle, job.threads, job.backend, job.templates, job.settings, job.plans)
    with _opened(job) as source:
        started = time.perf_counter()
        notes(_facts(job, model, source), job.is_quiet)
        with progress_bar("asking", job.is_quiet) as bar:
            answers = _answers(job, model, source, wanted, bar)
        seconds = time.perf_counter() - started
    if job.output is not None:
        _write(answers, job.output)
    for one in answers if job.output is None else ():
        typer.echo(f"{printable(one.name)}\t{' '.join(printable(one.text or one.status).split())}")
    failed = [one for one in answers if one.status != "ok"]
    if not job.is_quiet:
        where = f", written to {job.output}" if job.output is not None else ""
        error_console().print(
            f"{count(len(answers) - len(failed), 'answer')} in {seconds:.1f} s{where}", style="dim", soft_wrap=True
        )
    if model.notice:
        error_console().print(f"note: {printable(model.notice)}", style="yellow", markup=False, soft_wrap=True)
    if failed:
        why = reasons_of((one.name, one.status) for one in failed)
        line = printable(f"note: {len(failed):,} of {len(answers):,} failed: {why}")
        error_console().print(line, style="yellow", markup=False, soft_wrap=True)
    return SOME_FAILED if failed else 0


def _check_cells(job: AskJob, about: About) -> None:
    """Refuse cells where none are asked about: nothing would be read of them, and one answer given."""
    if about == "nothing" and job.cells_path is not None:
        raise UsageError(f"the task {job.task} is about no cells and is answered once; give - in place of {job.cells}.")


def _opened(job: AskJob) -> AbstractContextManager[CellSource | None]:
    path = job.cells_path
    return nullcontext() if path is None else open_cells(path, layer=job.layer, values=job.values)


def _asked(job: AskJob, question: Question) -> AskSettings:
    """Return what a bundle that follows instructions is asked; UsageError for what cannot be."""
    return asked_of(question.text, question.task, question.fields, job.template, job.settings.seed)


def _facts(job: AskJob, model: TextModel | InstructModel, source: CellSource | None) -> Iterable[tuple[str, str]]:
    """Say what is about to run: device, bundle, values, and how genes match or how many have names that are known."""
    if isinstance(model, InstructModel) and source is not None:
        return instruct_facts(model, source, min(source.n_cells, job.limit or source.n_cells))
    said = [("device", model.device), ("bundle", model.bundle.name)]
    if source is not None:
        said.append(("values", source.value_note))
        known = gene_report(source, model.settings.organism).get("sentence") if isinstance(model, TextModel) else None
        said += [("genes", str(known))] if known else []
    return said


def _answers(
    job: AskJob, model: TextModel | InstructModel, source: CellSource | None, wanted: Wanted, bar: Report | None
) -> tuple[Answer, ...]:
    question = wanted.question
    if isinstance(model, InstructModel):
        assert source is not None
        return model.about_cells(
            source, _asked(job, question), rows=np.arange(source.n_cells)[: job.limit], labels=wanted.labels,
            sampling=wanted.sampling, max_new_tokens=job.max_new_tokens, batch_size=job.batch_size, progress=bar,
        )  # fmt: skip
    return ask(
        model, source, question, limit=job.limit, labels=wanted.labels, sampling=wanted.sampling,
        max_new_tokens=job.max_new_tokens, batch_size=job.batch_size, progress=bar,
    )  # fmt: skip


def _write(answers: tuple[Answer, ...], path: Path) -> None:
    frame = answers_frame(answers)
    with replacing(path) as part:
        if path.suffix == ".parquet":
            frame.to_parquet(part)
        elif path.suffix == ".csv":
            frame.to_csv(part, index=False)
        else:
            frame.to_json(part, orient="records", lines=True, force_ascii=False)
