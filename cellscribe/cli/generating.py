"""What ``generate`` does, step by step: check, open, write cells, save, show."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from cellscribe.cli.console import error_console, notes, output_console
from cellscribe.cli.options import bundle_folder
from cellscribe.cli.progress import progress_bar, rates
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.cells import open_cells
from cellscribe.engine.output.files import check_output
from cellscribe.engine.output.h5ad import write_new
from cellscribe.engine.output.text import printable
from cellscribe.engine.sentences.genes import SentenceGenes
from cellscribe.engine.sentences.inverse import Inverse
from cellscribe.engine.sentences.words import check_choice, words_and_line
from cellscribe.engine.text_groups import write_cells
from cellscribe.engine.text_model import TextModel
from cellscribe.engine.text_types import TextSettings
from cellscribe.engine.types import Sampling


@dataclass(frozen=True)
class GenerateJob:
    """One call of ``generate``."""

    bundle: str
    output: Path
    cell_type: str | None
    count: int
    fit: Path | None
    genes: Path | None
    like: Path | None
    settings: TextSettings
    sampling: Sampling
    templates: Path | None = None
    max_new_tokens: int | None = None
    batch_size: int = 8
    backend: str = "auto"
    threads: int | None = None
    is_quiet: bool = False
    plans: Path | None = None

    def words_and_line(self) -> tuple[SentenceGenes, Inverse]:
        """Return what counts as a gene, and what turns ranks into expression; UsageError when neither is given."""
        check_choice(self.like is not None, self.genes is not None, self.fit is not None)
        if self.like is None:
            return words_and_line(genes=self.genes, fit=self.fit)
        with open_cells(self.like) as source:
            return words_and_line(source)


def generate_file(job: GenerateJob) -> int:
    """Write cells into an .h5ad and return the exit code."""
    check_output(job.output, job.like, (".h5ad",))
    words, line = job.words_and_line()
    model = TextModel(
        open_bundle(bundle_folder(job.bundle)), job.threads, job.backend, job.templates, job.settings, job.plans
    )
    facts = [
        ("device", model.device),
        ("bundle", f"{model.bundle.name} ({model.bundle.manifest.family}, {model.bundle.manifest.precision})"),
        ("cells", f"{job.count:,} of {job.cell_type or 'any kind'}, {model.num_genes} genes each"),
        ("sampling", job.sampling.label()),
    ]
    notes(facts, job.is_quiet)
    started = time.perf_counter()
    with progress_bar("writing cells", job.is_quiet) as bar:
        cells, said = write_cells(
            model,
            job.count,
            words,
            line,
            cell_type=job.cell_type,
            sampling=job.sampling,
            max_new_tokens=job.max_new_tokens,
            batch_size=job.batch_size,
            progress=bar,
        )
    write_new(cells, job.output)
    if model.notice:
        error_console().print(f"note: {printable(model.notice)}", style="yellow", markup=False, soft_wrap=True)
    if not job.is_quiet:
        seconds = time.perf_counter() - started
        error_console().print(f"{said}; {rates(job.count, 0, seconds)}", style="dim", soft_wrap=True)
        output_console().print(f"wrote {job.output}", markup=False, soft_wrap=True)
    return 0
