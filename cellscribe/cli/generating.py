"""What ``generate`` does, step by step: check, open, write cells, save, show."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from cellscribe.cli.console import error_console, notes, output_console
from cellscribe.cli.guard import SOME_FAILED
from cellscribe.cli.instructing import refuse_sentences, template_of
from cellscribe.cli.options import bundle_folder, pairs
from cellscribe.cli.progress import progress_bar, rates
from cellscribe.cli.truth_report import TruthReport
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.cells import open_cells
from cellscribe.engine.cells.values import ValueChoice
from cellscribe.engine.errors import UsageError
from cellscribe.engine.instruct.fields import without_clash
from cellscribe.engine.instruct.templates import GENERATION
from cellscribe.engine.instruct.writing import CellOrder, check_order
from cellscribe.engine.instruct.writing import write_cells as write_by_instruction
from cellscribe.engine.instruct_model import InstructModel
from cellscribe.engine.output.files import check_output
from cellscribe.engine.output.h5ad import write_new
from cellscribe.engine.output.run import count
from cellscribe.engine.output.text import clipped, printable
from cellscribe.engine.sentences.genes import SentenceGenes
from cellscribe.engine.sentences.inverse import Inverse
from cellscribe.engine.sentences.words import check_choice, check_reading, stand_in, words_and_line
from cellscribe.engine.text_cells import write_cells, write_samples
from cellscribe.engine.text_model import TextModel
from cellscribe.engine.text_samples import sample_of
from cellscribe.engine.text_types import TextSettings
from cellscribe.engine.types import Sampling, check_written


@dataclass(frozen=True)
class Ordering:
    """Options of bundles that follow instructions; samples of sentences have the tissue, too."""

    tissue: str | None = None
    pairs: tuple[str, ...] = ()
    instruction: str | None = None
    means: bool = False
    report: Path | None = None
    truth: Path | None = None
    truth_label: str = "cell_type"

    @property
    def truth_report(self) -> TruthReport | None:
        """The page that is wanted; UsageError for a page without real cells, or the other way round."""
        if (self.report is None) != (self.truth is None):
            raise UsageError("--report compares with the cells of --truth; give both, or none.")
        if self.report is None or self.truth is None:
            return None
        return TruthReport(self.report, self.truth, self.truth_label)


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
    temperature: float | None = None
    top_p: float | None = None
    templates: Path | None = None
    max_new_tokens: int | None = None
    batch_size: int = 8
    backend: str = "auto"
    threads: int | None = None
    is_quiet: bool = False
    plans: Path | None = None
    ordering: Ordering = field(default_factory=Ordering)
    template: str | None = None
    layer: str | None = None
    values: ValueChoice = "auto"
    cells_per_sample: int | None = None
    abstract: str | None = None

    def sampling(self, temperature: float) -> Sampling:
        """Return how tokens are chosen, at this temperature unless another one was asked for."""
        wanted = temperature if self.temperature is None else self.temperature
        return Sampling.of(self.top_p, wanted, self.settings.seed)

    def words_and_line(self, stand_in: Path | None = None) -> tuple[SentenceGenes, Inverse]:
        """Return what counts as a gene, and what turns ranks into expression; UsageError when neither is given.

        `stand_in` are cells in place of --like.
        """
        like = stand_in or self.like
        check_choice(like is not None, self.genes is not None, self.fit is not None)
        if like is None:
            return words_and_line(genes=self.genes, fit=self.fit)
        with open_cells(like, layer=self.layer, values=self.values) as source:
            return words_and_line(source)


def generate_file(job: GenerateJob) -> int:
    """Write cells into an .h5ad and return the exit code."""
    check_written("cell", job.count)
    check_output(job.output, job.like, (".h5ad",))
    check_reading(job.like is not None, job.layer, job.values)
    bundle = open_bundle(bundle_folder(job.bundle))
    if bundle.manifest.instruct is not None:
        return _by_instruction(job, bundle)
    return _by_sentences(job, bundle)


def _by_sentences(job: GenerateJob, bundle: Bundle) -> int:
    """Write cells with a bundle that reads sentences."""
    if replace(job.ordering, tissue=None) != Ordering():
        raise UsageError(
            f"--set, --instruction, --means, --report and --truth are for bundles that follow instructions, "
            f"and {bundle.name} {bundle.manifest.reading}; leave them out."
        )
    sample = sample_of(job.cells_per_sample, job.cell_type, job.ordering.tissue, job.abstract)
    check_written("cell" if sample is None else "sample", job.count)
    packaged = stand_in(bundle.folder, job.like, job.genes, job.fit)
    words, line = job.words_and_line(packaged)
    model = TextModel(bundle, job.threads, job.backend, job.templates, job.settings, job.plans)
    sampling = job.sampling(0.7)
    kind = clipped(printable(job.cell_type or "any kind"))
    each = f"{count(model.num_genes, 'gene')} each at most"
    asked = f"{job.count:,} of {kind}, {each}"
    if sample is not None:
        asked = f"{count(job.count, 'sample')} of {count(sample.num_cells, 'cell')}, {each}"
    facts = [
        ("device", model.device),
        ("bundle", f"{model.bundle.name} ({model.bundle.manifest.family}, {model.bundle.manifest.precision})"),
        ("cells", asked),
        ("sampling", sampling.label()),
    ]
    if packaged:
        facts.append(("genes, line", f"of the packaged cells ({len(words.words):,} genes); --like CELLS takes others"))
    notes(facts, job.is_quiet)
    started = time.perf_counter()
    with progress_bar("writing cells, saved when all are written", job.is_quiet) as bar:
        if sample is not None:
            cells, said = write_samples(
                model, job.count, words, line, sample, sampling=sampling, max_new_tokens=job.max_new_tokens,
                batch_size=job.batch_size, progress=bar,
            )  # fmt: skip
        else:
            cells, said = write_cells(
                model,
                job.count,
                words,
                line,
                cell_type=job.cell_type,
                sampling=sampling,
                max_new_tokens=job.max_new_tokens,
                batch_size=job.batch_size,
                progress=bar,
            )
    write_new(cells, job.output)
    _show(job, model.notice, f"{said}; {rates(cells.n_obs, 0, time.perf_counter() - started)}", [job.output])
    return SOME_FAILED if cells.n_obs < cells.uns["cellscribe"]["num_asked"] else 0


def _by_instruction(job: GenerateJob, bundle: Bundle) -> int:
    """Write cells with a bundle that follows instructions."""
    order, report = _order(job, bundle), job.ordering.truth_report
    if report is not None:
        report.check(job.output, order.fields, job.count)
    model = InstructModel(bundle, job.threads, job.backend, job.templates, job.plans, GENERATION)
    if report is not None:
        report.check_genes(model.genes, bundle.name)
    check_order(model, order)
    asked = ", ".join(order.fields.values()) or order.instruction or "any kind"
    facts = [
        ("device", model.device),
        ("bundle", f"{bundle.name} ({bundle.manifest.family}, {bundle.manifest.precision})"),
        ("cells", f"{job.count:,} of {asked}"),
        ("sampling", f"words {order.sampling.label()}; cells drawn with seed {order.seed}"),
    ]
    notes(facts, job.is_quiet)
    started = time.perf_counter()
    with progress_bar("writing cells", job.is_quiet) as bar:
        cells, said = write_by_instruction(model, order, bar)
    said = f"{said}; {rates(cells.n_obs, 0, time.perf_counter() - started)}"
    write_new(cells, job.output)
    if report is not None:
        with _announced_if_it_fails(job.output):
            report.write(job.output)
    _show(job, model.notice, said, [job.output, *([report.page] if report else [])])
    return SOME_FAILED if cells.n_obs < job.count else 0


@contextmanager
def _announced_if_it_fails(output: Path) -> Iterator[None]:
    """Say that the cells are written even where what comes after them fails."""
    try:
        yield
    except BaseException:
        error_console().print(f"wrote {output}, without the report", markup=False, soft_wrap=True)
        raise


def _order(job: GenerateJob, bundle: Bundle) -> CellOrder:
    """Put the options together; UsageError for those of other bundles."""
    more = job.ordering
    refuse_sentences(
        bundle, job.settings, ("--fit", job.fit), ("--genes", job.genes), ("--like", job.like),
        ("--cells-per-sample", job.cells_per_sample), ("--abstract", job.abstract),
    )  # fmt: skip
    fields = without_clash({"cell_type": job.cell_type, "tissue": more.tissue}, pairs(more.pairs))
    number, draws = template_of(job.template)
    return CellOrder(
        job.count, fields, more.instruction, number, draws, job.sampling(0.0), job.settings.seed, more.means,
        job.max_new_tokens or CellOrder.max_new_tokens, job.batch_size,
    )  # fmt: skip


def _show(job: GenerateJob, notice: str, said: str, written: list[Path]) -> None:
    if notice:
        error_console().print(f"note: {printable(notice)}", style="yellow", markup=False, soft_wrap=True)
    if not job.is_quiet:
        error_console().print(said, style="dim", markup=False, soft_wrap=True)
        for path in written:
            output_console().print(f"wrote {path}", markup=False, soft_wrap=True)
