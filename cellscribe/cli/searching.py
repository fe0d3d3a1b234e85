"""What ``search`` does, step by step: check, open, encode, find, show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cellscribe.cli.console import error_console, notes, output_console
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.errors import BundleError, UsageError
from cellscribe.engine.labelling.majority import names_in
from cellscribe.engine.labels import Labels, with_definitions
from cellscribe.engine.labels_file import read_labels
from cellscribe.engine.output.files import check_output
from cellscribe.engine.output.run import count
from cellscribe.engine.output.table import TABLES, write_table
from cellscribe.engine.output.text import printable
from cellscribe.engine.packaged import named_bundle
from cellscribe.engine.rank_model import TEMPLATE, RankModel, label_texts
from cellscribe.engine.search import CellIndex, open_index
from cellscribe.engine.search.find import cells_by_vector, cells_like, texts_by_cell
from cellscribe.engine.search.recall import Recall, recall_at

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SearchJob:
    """One call of ``search``."""

    index: Path
    texts: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    texts_file: Path | None = None
    number: int = 10
    truth: str | None = None
    has_definitions: bool = False
    template: str | None = None
    is_exact: bool = False
    output: Path | None = None
    bundle: str | None = None
    backend: str = "auto"
    plans: Path | None = None
    threads: int | None = None
    is_quiet: bool = False

    def check(self) -> None:
        """Raise UsageError or OutputError for what cannot work, before anything is opened."""
        if not all(one.strip() for one in self.texts):
            raise UsageError("a text is empty; say what the cells are to be.")
        if not (self.texts or self.cells or self.texts_file):
            raise UsageError("there is nothing to search for; give a text, --texts LIST, or --cell ID.")
        if self.texts and (self.cells or self.texts_file):
            raise UsageError(
                "a text is searched by itself; leave --texts and --cell out, or put the text into the list."
            )
        if self.texts_file is None and (self.truth or self.has_definitions or self.template is not None):
            raise UsageError("--truth, --definitions and --text-template are for --texts LIST; give one.")
        if self.truth and self.cells:
            raise UsageError("--truth compares all cells of the index with all texts; leave --cell out.")
        if self.output is not None:
            check_output(self.output, None, TABLES)


def search_index(job: SearchJob) -> int:
    """Search an index, show and write what is found, and return the exit code."""
    job.check()
    index = open_index(job.index)
    labels = None if job.texts_file is None else with_definitions(read_labels(job.texts_file), job.has_definitions)
    known = None if job.truth is None else names_in(index.column(job.truth))
    if labels is None and not job.texts:
        found = cells_like(index, job.cells, job.number, exact=job.is_exact)
    else:
        names = job.texts if labels is None else labels.names
        vectors = _text_vectors(job, index, labels)
        if job.cells:
            found = texts_by_cell(index, job.cells, names, vectors, job.number)
        else:
            found = cells_by_vector(index, names, vectors, job.number, exact=job.is_exact)
        if known is not None:
            _say(recall_at(index.vectors, vectors, known, names))
    if job.output is not None:
        write_table(found, job.output)
        if not job.is_quiet:
            error_console().print(f"wrote {job.output}", markup=False, soft_wrap=True)
    else:
        _show(found)
    return 0


def _text_vectors(job: SearchJob, index: CellIndex, labels: Labels | None) -> Floats:
    bundle = open_bundle(named_bundle(job.bundle or index.manifest["bundle"]["folder"]))
    if bundle.hash != index.manifest["bundle"]["hash"]:
        raise BundleError(
            f"the bundle {bundle.name} is not the one that the index {index.folder} was made with "
            f"({index.manifest['bundle']['name']}, {index.manifest['bundle']['hash'][:12]}); name that with --bundle."
        )
    if bundle.manifest.ranks is None:
        raise BundleError(
            f"the bundle {bundle.name} ({bundle.manifest.family}) has no texts; search its cells with --cell, or make "
            "the index with a langcell bundle."
        )
    model = RankModel(bundle, job.threads, job.backend, job.plans)
    notes(_facts(model, index), job.is_quiet)
    texts = job.texts if labels is None else label_texts(labels, TEMPLATE if job.template is None else job.template)
    return model.encode_texts(texts).vectors


def _facts(model: RankModel, index: CellIndex) -> Sequence[tuple[str, str]]:
    return (
        ("device", model.device),
        ("bundle", f"{model.bundle.name} ({model.bundle.manifest.family}, {model.bundle.manifest.precision})"),
        ("cells", f"{len(index.vectors):,} of {index.manifest['input']}"),
    )


def _say(recall: Recall) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("", *(f"R@{k}" for k in recall.cells_by_text)):
        table.add_column(name, justify="right" if name else "left")
    for what, shares in (
        (f"cells by text ({count(recall.num_texts, 'text')})", recall.cells_by_text),
        (f"texts by cell ({count(recall.num_cells, 'cell')})", recall.texts_by_cell),
    ):
        table.add_row(what, *(f"{100 * share:.1f} %" for share in shares.values()))
    console = output_console()
    console.print(table)
    console.print()


def _show(found: pd.DataFrame) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in found.columns:
        table.add_column(
            str(name),
            justify="right" if name in ("rank", "score") else "left",
            no_wrap=name in ("cell_id", "rank", "score"),
            overflow="fold",
        )
    last = None
    for row in found.itertuples(index=False):
        first, *rest = (f"{one:.4f}" if isinstance(one, float) else printable(one) for one in row)
        if last is not None and first != last:
            table.add_row()
        table.add_row(first if first != last else "", *rest)
        last = first
    output_console().print(table, markup=False)
