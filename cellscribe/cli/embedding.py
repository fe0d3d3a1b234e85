"""What ``embed`` does, step by step: check, open, run, write, show."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from cellscribe.cli.annotating import facts as sentence_facts
from cellscribe.cli.annotating import rank_facts
from cellscribe.cli.console import notes, output_console
from cellscribe.cli.progress import Report, progress_bar
from cellscribe.cli.work import check_destinations, facts, finish, kept_if_it_fails, rows_of
from cellscribe.engine.cells import CellSource, open_cells
from cellscribe.engine.cells.hvg import read_gene_list
from cellscribe.engine.cells.spec import HvgFlavor
from cellscribe.engine.dialogue_model import DialogueModel
from cellscribe.engine.errors import UsageError
from cellscribe.engine.integration import check_scores, integration_scores
from cellscribe.engine.labelling.majority import names_in
from cellscribe.engine.match_model import MatchModel
from cellscribe.engine.model import Model, load
from cellscribe.engine.output.fields import check_key
from cellscribe.engine.output.files import write_run
from cellscribe.engine.output.run import Run
from cellscribe.engine.sentence_model import SentenceModel
from cellscribe.engine.text_embed import embed_cells


@dataclass(frozen=True)
class EmbedJob:
    """One call of ``embed``."""

    cells: Path
    output: Path
    bundle: str = "demo"
    layer: str | None = None
    values: Literal["auto", "counts", "lognorm"] = "auto"
    key_added: str = "cellscribe"
    limit: int | None = None
    backend: str = "auto"
    plans: Path | None = None
    threads: int | None = None
    genes: Path | None = None
    hvg_flavor: HvgFlavor | None = None
    organism: str = "human"
    genes_per_cell: int | None = None
    templates: Path | None = None
    template: int | str | None = None
    seed: int = 0
    upstream_padding: int | None = None
    score_by: str | None = None
    batch: str | None = None
    is_quiet: bool = False

    def check(self, source: CellSource) -> None:
        """Raise UsageError or InputError for columns that scores cannot be made of."""
        if self.batch is not None and self.score_by is None:
            raise UsageError("--batch is scored beside cell types; name their column with --score-by.")
        for column in (self.score_by, self.batch):
            if column is not None:
                source.obs_column(column)
        if self.score_by is not None:
            check_scores()

    def load(self) -> Model | SentenceModel | MatchModel:
        """Load the bundle; BundleError for one that embeds nothing."""
        model = load(
            self.bundle,
            threads=self.threads,
            seed=self.seed,
            hvg=None if self.genes is None else read_gene_list(self.genes),
            hvg_flavor=self.hvg_flavor,
            backend=self.backend,
            plans=self.plans,
            organism=self.organism,
            genes_per_cell=self.genes_per_cell,
            template=self.template,
            templates=self.templates,
        )
        return model.embed() if isinstance(model, DialogueModel) else model  # which says what to use


def embed_file(job: EmbedJob) -> int:
    """Embed the cells of a file, write the result, and return the exit code."""
    check_key(job.key_added)
    check_destinations(job.cells, job.output, None, None)
    with open_cells(job.cells, layer=job.layer, values=job.values) as source:
        job.check(source)
        model = job.load()
        rows = rows_of(source, (), job.limit)
        model_facts(model, source, len(rows), job.is_quiet)
        started = time.perf_counter()
        with progress_bar("embedding", job.is_quiet) as bar:
            run = embed_some(job, model, source, rows=rows, progress=bar)
        seconds = time.perf_counter() - started
        with kept_if_it_fails(run, job.output, job.cells, job.key_added):
            run = _scored(job, run, source)
    write_run(run, job.output, job.cells, job.key_added)
    return finish(run, seconds, [job.output], job.is_quiet)


def _scored(job: EmbedJob, run: Run, source: CellSource) -> Run:
    """Score the vectors, where it is wished, print the scores, and keep them among the settings."""
    if job.score_by is None:
        return run
    assert run.embeddings is not None
    types, batches = (
        None if name is None else names_in(source.obs_column(name).iloc[run.rows]) for name in (job.score_by, job.batch)
    )
    assert types is not None
    scores = integration_scores(run.embeddings, types, batches).as_dict()
    for name, value in scores.items():
        output_console().print(f"{name:<20} {value:.4f}" if isinstance(value, float) else f"{name:<20} {value:,}")
    return replace(run, settings={**run.settings, "integration": scores})


def model_facts(model: Model | SentenceModel | MatchModel, source: CellSource, num_rows: int, quiet: bool) -> None:
    """Print what is about to run."""
    if isinstance(model, SentenceModel):
        notes(sentence_facts(model.text, source, num_rows), quiet)
    elif isinstance(model, MatchModel):
        notes(rank_facts(model.ranks, source, num_rows), quiet)
    else:
        notes(facts(model, source, num_rows), quiet)


def embed_some(
    job: EmbedJob,
    model: Model | SentenceModel | MatchModel,
    source: CellSource,
    *,
    rows: npt.NDArray[np.int64],
    progress: Report | None,
) -> Run:
    """Embed some cells with whatever the bundle is."""
    if isinstance(model, SentenceModel):
        return embed_cells(model.text, source, rows=rows, upstream_padding=job.upstream_padding, progress=progress)
    if job.upstream_padding is not None:
        raise UsageError(
            f"--upstream-padding is for bundles that read sentences; leave it out with {model.bundle.name}."
        )
    cells = model.ranks if isinstance(model, MatchModel) else model
    return cells.embed_cells(source, rows=rows, progress=progress)
