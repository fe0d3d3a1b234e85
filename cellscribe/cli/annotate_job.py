"""One call of ``annotate``, and what is wrong with it that can be told before cells are opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cellscribe.cli.instructing import asked_of, refuse_sentences
from cellscribe.cli.options import pairs
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.errors import UsageError
from cellscribe.engine.instruct.annotate import check_wishes
from cellscribe.engine.instruct.asking import AskSettings
from cellscribe.engine.instruct.templates import instructions_with
from cellscribe.engine.labelling.finish import Finish, finish_of
from cellscribe.engine.labelling.markers import read_markers
from cellscribe.engine.labels import Labels
from cellscribe.engine.matching.zero_shot import ZeroShot
from cellscribe.engine.rank_model import TEMPLATE
from cellscribe.engine.sentences.templates import ANNOTATION, known_task, templates_with
from cellscribe.engine.text_annotate import check_scores
from cellscribe.engine.text_types import TextSettings


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


def asked_by(job: AnnotateJob) -> AskSettings:
    """Return what a bundle that follows instructions is asked; UsageError for what cannot be."""
    given = job.following
    return asked_of(given.instruction, given.task, pairs(given.pairs), job.template, job.settings.seed)


def check_options(job: AnnotateJob, bundle: Bundle, labels: Labels | None) -> None:
    """Raise UsageError for options that a bundle of this family cannot honour, or that need others."""
    if bundle.manifest.instruct is not None:
        _check_following(job, bundle, labels)
    elif bundle.manifest.ranks is not None:
        _check_matching(job, bundle, labels)
    else:
        _check_writing(job, bundle, labels)


def _check_following(job: AnnotateJob, bundle: Bundle, labels: Labels | None) -> None:
    _refuse(job, bundle, following=False)
    refuse_sentences(bundle, job.settings)
    check_wishes(labels is not None, job.all_scores, job.following.in_words)
    asked = asked_by(job)
    if asked.instruction is None:
        task = known_task(instructions_with(job.templates, asked.task), asked.task)
        if asked.number is not None:
            task.candidates(asked.number, (), draws=False)


def _check_writing(job: AnnotateJob, bundle: Bundle, labels: Labels | None) -> None:
    _refuse(job, bundle)
    check_scores(labels is not None, job.all_scores)
    if bundle.manifest.sentences is not None:
        known_task(templates_with(job.templates), ANNOTATION).prompt(job.settings.template, "")


def _check_matching(job: AnnotateJob, bundle: Bundle, labels: Labels | None) -> None:
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
