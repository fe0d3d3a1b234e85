"""One text per cluster of an atlas, and texts of cells only where they are asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cellscribe.engine.atlas.folder import AtlasFolder
from cellscribe.engine.atlas.groups import group_names
from cellscribe.engine.atlas.inputs import find_inputs
from cellscribe.engine.atlas.job import TOP_GENES, AtlasJob, Running
from cellscribe.engine.atlas.manifest import Manifest
from cellscribe.engine.atlas.plan import FileEntry, look_through
from cellscribe.engine.atlas.run import Engine, Outcome, Watch, run_atlas
from cellscribe.engine.atlas.sources import Sources
from cellscribe.engine.atlas.tables import METADATA, OK, metadata_of, text_columns, vectors_column
from cellscribe.engine.atlas.tasks import open_atlas_bundle
from cellscribe.engine.atlas.where import Condition
from cellscribe.engine.describe import DescribeOptions, Writer, write_all
from cellscribe.engine.errors import InputError, OutputError, UsageError
from cellscribe.engine.pools import Pools, pool_requests
from cellscribe.engine.source_model import SourceModel

CLUSTERS, CELLS = "clusters.parquet", "cells"


def run_per_cluster(
    inputs: Sequence[str],
    out: Path | str,
    job: AtlasJob,
    running: Running,
    column: str,
    *,
    cells_where: str | None = None,
    is_resumed: bool = False,
    engine: Engine = "local",
    watch: Watch | None = None,
) -> Outcome:
    """Embed all cells into `out`, describe each cluster in ``clusters.parquet``, and chosen cells in ``cells``.

    A cluster is described by the mean of its cells' vectors. All three parts are resumed like any run.

    Parameters
    ----------
    column
        The obs column that says which cluster a cell is of; cells without a value are of none.
    cells_where
        A condition on the cells that also get a text each; None for no cell.

    Raises
    ------
    UsageError
        For another task than describe.
    InputError
        When an input lacks the column, or no cell has a value.
    """
    if job.task != "describe":
        raise UsageError(f"--per-cluster describes clusters; use it with --task describe, not {job.task}.")
    if cells_where is None and job.top_genes != TOP_GENES:
        raise UsageError("--top-genes has no effect on texts of clusters; leave it out, or add --cells-where.")
    open_atlas_bundle(job)
    folder = AtlasFolder(out)
    known = folder.read_manifest()[0].files if folder.is_begun else ()
    few = None
    if cells_where is not None:
        few, known = _checked(inputs, job, column, cells_where, known)
    embedding = replace(job, task="embed", per_cluster=column, top_genes=TOP_GENES)
    embedded = run_atlas(
        inputs, out, embedding, running, is_resumed=is_resumed, engine=engine, watch=watch, known=known
    )
    told = {"run": embedded.manifest.run, "column": column}
    is_new = _told_of(folder) != told
    if is_new:
        _describe(folder, embedded.manifest, job, running, column, told)
    frame = read_clusters(folder)
    assert frame is not None
    clusters = len(frame), int((frame["status"] != OK).sum())
    embedded = replace(embedded, had_work=embedded.had_work or is_new, clusters=clusters)
    if few is None:
        return embedded
    cells = folder.below(CELLS)
    described = run_atlas(
        inputs, cells.name, few, running, is_resumed=is_resumed and cells.is_begun, engine=engine, watch=watch,
        known=embedded.manifest.files,
    )  # fmt: skip
    return replace(embedded, had_work=embedded.had_work or described.had_work, cells=described)


def _checked(
    inputs: Sequence[str], job: AtlasJob, column: str, cells_where: str, known: Sequence[FileEntry]
) -> tuple[AtlasJob, tuple[FileEntry, ...]]:
    """Return the job of the cells that get a text each, once it is known that there are some, and what was seen."""
    if job.where is not None:
        Condition.parse(job.where)
    few = replace(job, cells_where=cells_where)
    try:
        Condition.parse(cells_where)
        plan = look_through(find_inputs(inputs), replace(few, per_cluster=column), known=known)
    except (UsageError, InputError) as error:
        raise type(error)(str(error).replace("--where", "--cells-where")) from error
    return few, plan.files


def read_clusters(folder: AtlasFolder) -> pd.DataFrame | None:
    """Read ``clusters.parquet``: a row per cluster; ``attrs["column"]`` names the column of obs; None without one."""
    if not folder.storage.is_file(CLUSTERS):
        return None
    try:
        with folder.storage.open(CLUSTERS) as file:
            table = pq.read_table(file)
        frame: pd.DataFrame = table.to_pandas()
        frame.attrs["column"] = metadata_of(table.schema)["column"]
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise OutputError(f"{folder.name}/{CLUSTERS} is damaged; remove it, and resume the run.") from error
    return frame


def _told_of(folder: AtlasFolder) -> dict[str, Any] | None:
    """Return what the clusters that are there say of themselves."""
    if not folder.storage.is_file(CLUSTERS):
        return None
    try:
        with folder.storage.open(CLUSTERS) as file:
            return metadata_of(pq.read_schema(file))
    except (OSError, ValueError, pa.ArrowException):
        return None


@dataclass
class _Sums:
    """Sums of the vectors of clusters, and how many cells they are of."""

    width: int
    names: dict[str, int] = field(default_factory=dict)
    sums: list[npt.NDArray[np.float64]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def add(self, labels: npt.NDArray[np.object_], vectors: npt.NDArray[np.float32]) -> None:
        """Add cells: their labels [N], None left out, and vectors [N, d], of which NaN rows count for nothing."""
        codes, names = pd.factorize(labels, use_na_sentinel=True)
        usable = np.isfinite(vectors).all(axis=1) & (codes >= 0)
        sums, counts = np.zeros((len(names), self.width)), np.bincount(codes[usable], minlength=len(names))
        np.add.at(sums, codes[usable], vectors[usable])
        for name, mine, number in zip(names, sums, counts.tolist(), strict=True):
            place = self.names.setdefault(name, len(self.names))
            if place == len(self.sums):
                self.sums.append(np.zeros(self.width))
                self.counts.append(0)
            self.sums[place] += mine
            self.counts[place] += number


def _describe(
    folder: AtlasFolder, manifest: Manifest, job: AtlasJob, running: Running, column: str, told: dict[str, Any]
) -> None:
    bundle = open_atlas_bundle(job)
    sums = _Sums(bundle.manifest.encoder_shape.d_model)
    with Sources(job, manifest.files) as sources:
        known = -1
        for shard in manifest.plan.shards:
            source, rows = sources.of(shard)
            if shard.file != known:
                known, labels = shard.file, group_names(source.obs_column(column))
            table = folder.read_shard(shard, ["embedding"])
            lists = table["embedding"].combine_chunks()
            vectors = lists.values.to_numpy(zero_copy_only=False).reshape(-1, sums.width).copy()
            vectors[~lists.is_valid().to_numpy(zero_copy_only=False)] = np.nan
            sums.add(labels[rows], vectors)
    if not sums.names:
        raise InputError(f"no cell has a value in the obs column {column!r}; choose another column.")
    names = tuple(sorted(sums.names))
    order = [sums.names[name] for name in names]
    total = np.stack([sums.sums[place] for place in order])
    length = np.linalg.norm(total, axis=1, keepdims=True)
    vectors = np.divide(total, length, out=np.full_like(total, np.nan), where=length > 0).astype(np.float32)
    pools = Pools(column, names, vectors, np.empty(0, np.int64))
    model = SourceModel(bundle, threads=running.threads, seed=job.seed, backend=running.backend, plans=running.plans)
    writer = Writer(model.backend, bundle, DescribeOptions(job.sampling, job.new_tokens, running.batch_size, 0))
    lost = write_all(writer, pool_requests(pools, bundle), 1, len(names), None, None)
    texts = [writer.descriptions.get(i) or pools.failed(i, lost) for i in range(len(names))]
    columns = {name: one for name, one in text_columns(texts).items() if "genes" not in name and "gene_" not in name}
    table = pa.table(
        {
            "cluster": pa.array(list(names), pa.string()),
            "num_cells": pa.array([sums.counts[place] for place in order], pa.int64()),
            **columns,
            "embedding": vectors_column(vectors),
            "status": pa.array([one.status for one in texts], pa.string()),
        }
    )
    with folder.storage.replacing(CLUSTERS) as part:
        pq.write_table(table.replace_schema_metadata({METADATA: json.dumps(told)}), part, compression="zstd")
