"""Which cells of which files make which shards: read once before any compute, and again when a run is resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.atlas.inputs import CellFile
from cellscribe.engine.atlas.job import AtlasJob
from cellscribe.engine.atlas.stamps import digest_of, stamp_of
from cellscribe.engine.atlas.urls import Scratch
from cellscribe.engine.atlas.where import Condition
from cellscribe.engine.cells import CellSource, open_cells
from cellscribe.engine.errors import InputError

Rows = npt.NDArray[np.int64]
OnFile = Callable[[int, int, str], None]  # files looked at, files in all, the next one's name
_OPEN_FILES = 4  # that are looked at at a time


@dataclass(frozen=True)
class FileEntry:
    """What is known of one input: cells and genes, cells that were chosen, and what its contents are told by.

    A file that could not be opened says `why`, and has no cells. `chosen_key` changes with the choice of its cells,
    `genes_key` with the names of its genes, `digest` with any of its bytes, `stamp` (of an input of this machine) when
    it is written.
    """

    path: str
    name: str
    n_cells: int = 0
    n_genes: int = 0
    chosen: int = 0
    chosen_key: str = ""
    fingerprint: str = ""
    genes_key: str = ""
    values: str = ""
    why: str = ""
    stamp: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Shard:
    """A run of the chosen cells of one file: `start` to `stop` of them."""

    number: int
    file: int
    start: int
    stop: int

    @property
    def n_cells(self) -> int:
        """Its cells."""
        return self.stop - self.start

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"shard-{self.number:06d}.parquet"


@dataclass(frozen=True)
class Plan:
    """All files and, made from them, all shards."""

    files: tuple[FileEntry, ...]
    shard_cells: int
    shards: tuple[Shard, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shards", tuple(_cut(self.files, self.shard_cells)))

    @property
    def n_cells(self) -> int:
        """Cells in all."""
        return sum(one.chosen for one in self.files)

    @property
    def skipped(self) -> tuple[FileEntry, ...]:
        """Files that could not be opened."""
        return tuple(one for one in self.files if one.why)

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the files as the manifest keeps them."""
        return [asdict(one) for one in self.files]


def look_through(
    inputs: Sequence[CellFile],
    job: AtlasJob,
    *,
    is_strict: bool = False,
    on_file: OnFile | None = None,
    known: Sequence[FileEntry] = (),
) -> Plan:
    """Open every input, choose its cells, and cut them into shards.

    Parameters
    ----------
    known
        Inputs that were looked at before: the digest of one is taken from there where its stamp is the same.

    Raises
    ------
    InputError
        When no cell is left; or, with `is_strict`, for the first file that cannot be used.
    """
    looker = _Looker(job, is_strict, {one.path: one for one in known})
    told = on_file or (lambda done, total, name: None)
    found = looker.together(inputs, told) if job.limit is None else looker.in_turn(inputs, told, job.limit)
    plan = Plan(tuple(found), job.shard_cells)
    if not plan.n_cells:
        raise InputError(_nothing(plan, job))
    if looker.lacks is not None and not looker.has_report_by:
        raise looker.lacks
    return plan


class _Looker:
    """Looks at inputs: one after the other where a limit of cells is to be met, else some at a time."""

    def __init__(self, job: AtlasJob, is_strict: bool, known: Mapping[str, FileEntry]) -> None:
        self._job, self._is_strict, self._known = job, is_strict, known
        self._condition = None if job.condition is None else Condition.parse(job.condition)
        self.has_report_by = False
        self.lacks: InputError | None = None  # of the first file without the column

    def in_turn(self, inputs: Sequence[CellFile], on_file: OnFile, limit: int) -> Iterator[FileEntry]:
        """Give the inputs, until there are as many cells as wanted."""
        for i, one in enumerate(inputs):
            on_file(i, len(inputs), one.name)
            if not limit:
                return
            entry = self._entry(one, limit)
            limit -= entry.chosen
            yield entry

    def together(self, inputs: Sequence[CellFile], on_file: OnFile) -> Iterator[FileEntry]:
        """Give the inputs in their order, some of them opened at a time."""
        pool = ThreadPoolExecutor(_OPEN_FILES, thread_name_prefix="inputs")
        try:
            asked = [pool.submit(self._entry, one) for one in inputs]
            for i, (one, entry) in enumerate(zip(inputs, asked, strict=True)):
                on_file(i, len(inputs), one.name)
                yield entry.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _entry(self, one: CellFile, limit: int | None = None) -> FileEntry:
        try:
            with Scratch() as scratch:
                return self._looked_at(one, scratch.local(one.path), limit)
        except InputError as error:
            if self._is_strict:
                raise
            return FileEntry(str(one.path), one.name, why=str(error))

    def _looked_at(self, one: CellFile, path: Path, limit: int | None) -> FileEntry:
        stamp, before = stamp_of(path), self._known.get(str(one.path))
        with opened(path, self._job) as source:
            self._look_for_report_by(source)
            if self._job.per_cluster is not None:
                source.obs_column(self._job.per_cluster)
            entry = _entry(one, source, chosen_rows(source, self._condition, limit))
        is_same = before is not None and before.stamp == stamp and before.digest
        digest = before.digest if before is not None and is_same else digest_of(path)
        if stamp_of(path) != stamp:
            raise InputError(f"{one.name} was written to while it was read; wait until it is complete.")
        return replace(entry, stamp=stamp if isinstance(one.path, Path) else "", digest=digest)

    def _look_for_report_by(self, source: CellSource) -> None:
        """Note whether the column is there: cells of a file without it are in no group, and run all the same."""
        name = self._job.report_by
        if name is None:
            return
        if name in source.obs_columns:
            source.obs_column(name)  # which must be readable
            self.has_report_by = True
            return
        try:
            source.obs_column(name)
        except InputError as error:
            self.lacks = self.lacks or error


def opened(path: Path, job: AtlasJob) -> CellSource:
    """Open the cells of one input; bad values of single cells do not count against the file."""
    return open_cells(path, layer=job.layer, values=job.values, is_lenient=True)


def chosen_rows(source: CellSource, condition: Condition | None, limit: int | None) -> Rows:
    """Return the rows that a condition and a limit leave, rising, int64 [N]."""
    if condition is None:
        return np.arange(source.n_cells if limit is None else min(limit, source.n_cells))
    return np.flatnonzero(condition.holds(source.obs_column, source.n_cells))[:limit]


def genes_key(names: Sequence[str]) -> str:
    """Return what changes with the names of genes or their order."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def _entry(one: CellFile, source: CellSource, rows: Rows) -> FileEntry:
    return FileEntry(
        path=str(one.path),
        name=one.name,
        n_cells=source.n_cells,
        n_genes=source.n_genes,
        chosen=len(rows),
        chosen_key=hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:16],
        fingerprint=source.fingerprint(),
        genes_key=genes_key(source.var_names.tolist()),
        values=source.value_note,
    )


def _cut(files: Sequence[FileEntry], shard_cells: int) -> Iterator[Shard]:
    number = 0
    for i, one in enumerate(files):
        for start in range(0, one.chosen, shard_cells):
            yield Shard(number, i, start, min(start + shard_cells, one.chosen))
            number += 1


def _nothing(plan: Plan, job: AtlasJob) -> str:
    if plan.skipped and len(plan.skipped) == len(plan.files):
        first = plan.skipped[0].why
        return first if len(plan.files) == 1 else f"none of {len(plan.files):,} inputs can be read; the first: {first}"
    if job.condition is not None:
        return f"no cell of {len(plan.files):,} inputs is one where {job.condition}; look at the column's values."
    return "the inputs hold no cells; give at least one."
