"""The cells of an atlas as a datasource of Ray Data: one row per shard. Only imported where Ray is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from cellscribe.engine.atlas.carried import SCHEMA, shard_tables
from cellscribe.engine.atlas.job import AtlasJob
from cellscribe.engine.atlas.plan import FileEntry, Shard

_BYTES_PER_CELL = 16_000  # 2,000 genes, a column and a value each
_MOST_SHARDS = 16


class CellsDatasource(Datasource):  # type: ignore[misc]
    """Shards of an atlas, read by :class:`cellscribe.engine.atlas.sources.Sources`; see `carried` for the columns.

    Parameters
    ----------
    job
        Says how cells are chosen.
    files
        Those of the plan.
    shards
        To be read.
    readers
        Tasks that will read at a time; shards of one file share a task as long as all have work.
    """

    def __init__(self, job: AtlasJob, files: tuple[FileEntry, ...], shards: Sequence[Shard], readers: int = 1) -> None:
        super().__init__()
        self._job, self._files, self._shards = job, files, tuple(shards)
        self._most = max(1, min(_MOST_SHARDS, len(self._shards) // (4 * readers)))

    @property
    def n_tasks(self) -> int:
        """How many tasks read the shards."""
        return len(list(self._runs()))

    def get_name(self) -> str:
        """Return the name that Ray shows."""
        return "Cells"

    def estimate_inmemory_data_size(self) -> int:
        """Return how many bytes all shards take, about."""
        return sum(one.n_cells for one in self._shards) * _BYTES_PER_CELL

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Return tasks that read runs of shards of one file each."""
        return [self._task(run, per_task_row_limit) for run in self._runs()]

    def _task(self, run: tuple[Shard, ...], row_limit: int | None) -> ReadTask:
        entry = self._files[run[0].file]
        about = BlockMetadata(
            num_rows=len(run),
            size_bytes=sum(one.n_cells for one in run) * _BYTES_PER_CELL,
            input_files=(entry.path,),
            exec_stats=None,
        )
        read = partial(shard_tables, self._job, entry, run)
        return ReadTask(read, about, schema=SCHEMA, per_task_row_limit=row_limit)

    def _runs(self) -> Iterator[tuple[Shard, ...]]:
        run: list[Shard] = []
        for shard in self._shards:
            if run and (shard.file != run[0].file or len(run) == self._most):
                yield tuple(run)
                run = []
            run.append(shard)
        if run:
            yield tuple(run)
