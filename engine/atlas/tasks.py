"""What a worker does with shards: the task of a job, on a model that is loaded once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cellscribe.engine.atlas.describing import Describing
from cellscribe.engine.atlas.embedding import Embedding
from cellscribe.engine.atlas.job import AtlasJob, Running
from cellscribe.engine.atlas.meter import Meter
from cellscribe.engine.atlas.plan import FileEntry, Shard
from cellscribe.engine.atlas.sources import Sources, is_there
from cellscribe.engine.atlas.tables import OK, run_columns, table_of
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.cells import CellSource
from cellscribe.engine.cells.hvg import read_gene_list
from cellscribe.engine.errors import BundleError, InputError, UsageError
from cellscribe.engine.instruct.annotate import annotate_cells as annotate_by_instruction
from cellscribe.engine.instruct_model import InstructModel
from cellscribe.engine.labels import Labels
from cellscribe.engine.labels_file import read_labels
from cellscribe.engine.output.run import Run
from cellscribe.engine.packaged import named_bundle
from cellscribe.engine.rank_model import RankModel
from cellscribe.engine.source_model import SourceModel
from cellscribe.engine.text_annotate import annotate_cells
from cellscribe.engine.text_embed import embed_cells
from cellscribe.engine.text_model import TextModel
from cellscribe.engine.text_types import TextSettings

Rows = npt.NDArray[np.int64]
OnSource = Callable[[CellSource, Rows], Run]


class AtlasTask(Protocol):
    """Makes tables of shards."""

    def tables(self, shards: Iterable[Shard]) -> Iterator[tuple[Shard, pa.Table]]:
        """Take shards, and give each with its results as soon as they are there."""
        ...


class ByShard:
    """A task that takes one shard after the other; stages, padding and slots within it are not measured."""

    def __init__(self, work: OnSource, sources: Sources, files: tuple[FileEntry, ...], meter: Meter) -> None:
        self._work, self._sources, self._files, self._meter = work, sources, files, meter

    def tables(self, shards: Iterable[Shard]) -> Iterator[tuple[Shard, pa.Table]]:
        """Give each shard with its results."""
        for shard in shards:
            source, rows = self._sources.of(shard)
            with self._meter.stage("model"):
                parts = list(self._parts(shard, source, rows))
            yield shard, parts[0] if len(parts) == 1 else pa.concat_tables(parts, promote_options="default")

    def _parts(self, shard: Shard, source: CellSource, rows: Rows) -> Iterator[pa.Table]:
        """Give the results of rows, in order; where they cannot be read, find out which, and go on with the others."""
        names, file = source.obs_names[rows].tolist(), self._files[shard.file].name
        groups = self._groups_of(shard, rows)
        try:
            run = self._work(source, rows)
        except InputError as error:
            if not is_there(source.path):
                raise
            if len(rows) > 1 and source.is_alive:
                for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
                    yield from self._parts(shard, source, half)
                return
            statuses, columns = [f"failed: {str(error).removesuffix('.')}"] * len(rows), {}
        else:
            statuses, columns = [OK] * len(rows), run_columns(run)
            for place, one in _failures(run):
                row = int(rows[place])
                statuses[place] = f"failed: {source.bad_cells[row]}" if row in source.bad_cells else one
            self._meter.tokens += run.num_tokens
        self._meter.cells += len(rows)
        self._meter.failed += sum(one != OK for one in statuses)
        yield table_of(file, rows, names, statuses, columns, groups)

    def _groups_of(self, shard: Shard, rows: Rows) -> list[str | None] | None:
        groups = self._sources.groups(shard)
        if groups is None:
            return None
        _, whole = self._sources.of(shard)
        return [groups[place] for place in np.searchsorted(whole, rows).tolist()]


def _failures(run: Run) -> Iterator[tuple[int, str]]:
    if run.descriptions:
        yield from ((i, one.status) for i, one in enumerate(run.descriptions) if not one.is_ok)
        return
    assert run.embeddings is not None
    failed = iter(run.failed)
    for place in np.flatnonzero(np.isnan(run.embeddings).any(axis=1)).tolist():
        yield place, next(failed).status


def open_atlas_bundle(job: AtlasJob) -> Bundle:
    """Open the bundle of a job, and make sure that it can do the task.

    Raises
    ------
    BundleError
        When it cannot be opened, or does something else.
    UsageError
        For options that do not go with it.
    """
    bundle = open_bundle(named_bundle(job.bundle))
    manifest = bundle.manifest
    is_plain = manifest.ranks is None and manifest.instruct is None and manifest.sentences is None
    able = {
        "describe": is_plain and bundle.describes,
        "embed": manifest.instruct is None,
        "annotate": not is_plain,
    }
    if not able[job.task]:
        others = [name for name, can in able.items() if can]
        raise BundleError(
            f"the bundle {bundle.name} ({manifest.family}) does not {job.task}; choose --task "
            f"{' or '.join(others) or 'of another bundle'}, or another bundle."
        )
    if job.task == "annotate" and job.labels is None and manifest.sentences is None:
        raise UsageError(f"the bundle {bundle.name} chooses from labels; give --labels (.txt, .tsv, .json or .obo).")
    if manifest.ranks is not None and job.max_new_tokens is not None:
        raise UsageError(f"the bundle {bundle.name} writes no labels; leave --max-new-tokens out.")
    if (job.genes or job.hvg_flavor) and not (is_plain and manifest.cell_input.selection == "hvg"):
        raise UsageError(f"the bundle {bundle.name} chooses its genes itself; leave --genes and --hvg-flavor out.")
    if manifest.sentences is None and (job.organism != "human" or job.genes_per_cell is not None):
        raise UsageError(f"the bundle {bundle.name} reads no sentences; leave --organism and --genes-per-cell out.")
    return bundle


def open_task(
    job: AtlasJob, running: Running, sources: Sources, files: tuple[FileEntry, ...], meter: Meter
) -> AtlasTask:
    """Load the model of a job; see :func:`open_atlas_bundle` for what is raised."""
    bundle = open_atlas_bundle(job)
    if bundle.manifest.encoder is not None and bundle.manifest.instruct is None and bundle.manifest.ranks is None:
        model = SourceModel(
            bundle, threads=running.threads, seed=job.seed, backend=running.backend, plans=running.plans,
            hvg=None if job.genes is None else read_gene_list(job.genes), hvg_flavor=job.hvg_flavor,
        )  # fmt: skip
        if job.task == "embed":
            return Embedding(model, sources, files, meter)
        return Describing(model, job, running.batch_size, sources, files, meter)
    labels = None if job.labels is None else read_labels(job.labels)
    return ByShard(_work(job, running, bundle, labels), sources, files, meter)


def _work(job: AtlasJob, running: Running, bundle: Bundle, labels: Labels | None) -> OnSource:
    if bundle.manifest.ranks is not None:
        ranks = RankModel(bundle, running.threads, running.backend, running.plans)
        if job.task == "embed":
            return lambda source, rows: ranks.embed_cells(source, rows=rows)
        assert labels is not None
        return lambda source, rows: ranks.annotate_cells(source, labels, rows=rows)
    if bundle.manifest.instruct is not None:
        follows = InstructModel(bundle, running.threads, running.backend, None, running.plans)
        return lambda source, rows: annotate_by_instruction(
            follows, source, rows=rows, labels=labels, max_new_tokens=job.new_tokens, batch_size=running.batch_size
        )
    settings = TextSettings(organism=job.organism, num_genes=job.genes_per_cell, seed=job.seed)
    writes = TextModel(bundle, running.threads, running.backend, None, settings, running.plans)
    if job.task == "embed":
        return lambda source, rows: embed_cells(writes, source, rows=rows)
    return lambda source, rows: annotate_cells(
        writes, source, rows=rows, labels=labels, max_new_tokens=job.new_tokens, batch_size=running.batch_size
    )
