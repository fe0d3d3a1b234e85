"""What ``embed`` does, step by step: check, open, run, write, show."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from cellscribe.cli.annotating import facts as sentence_facts
from cellscribe.cli.annotating import rank_facts
from cellscribe.cli.console import notes
from cellscribe.cli.progress import Report, progress_bar
from cellscribe.cli.work import check_destinations, facts, finish, rows_of
from cellscribe.engine.cells import CellSource, open_cells
from cellscribe.engine.cells.hvg import read_gene_list
from cellscribe.engine.cells.spec import HvgFlavor
from cellscribe.engine.errors import UsageError
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
    template: int | str = 0
    seed: int = 0
    upstream_padding: int | None = None
    is_quiet: bool = False

    def load(self) -> Model | SentenceModel | MatchModel:
        """Load the bundle."""
        return load(
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


def embed_file(job: EmbedJob) -> int:
    """Embed the cells of a file, write the result, and return the exit code."""
    check_key(job.key_added)
    check_destinations(job.cells, job.output, None, None)
    with open_cells(job.cells, layer=job.layer, values=job.values) as source:
        model = job.load()
        rows = rows_of(source, (), job.limit)
        if isinstance(model, SentenceModel):
            notes(sentence_facts(model.text, source, len(rows)), job.is_quiet)
        elif isinstance(model, MatchModel):
            notes(rank_facts(model.ranks, source, len(rows)), job.is_quiet)
        else:
            notes(facts(model, source, len(rows)), job.is_quiet)
        started = time.perf_counter()
        with progress_bar("embedding", job.is_quiet) as bar:
            run = _embed(job, model, source, rows, bar)
        seconds = time.perf_counter() - started
    write_run(run, job.output, job.cells, job.key_added)
    return finish(run, seconds, [job.output], job.is_quiet)


def _embed(
    job: EmbedJob,
    model: Model | SentenceModel | MatchModel,
    source: CellSource,
    rows: npt.NDArray[np.int64],
    bar: Report | None,
) -> Run:
    if isinstance(model, SentenceModel):
        return embed_cells(model.text, source, rows=rows, upstream_padding=job.upstream_padding, progress=bar)
    if job.upstream_padding is not None:
        raise UsageError(
            f"--upstream-padding is for bundles that read sentences; leave it out with {model.bundle.name}."
        )
    cells = model.ranks if isinstance(model, MatchModel) else model
    return cells.embed_cells(source, rows=rows, progress=bar)
