"""Texts of shards: one set of slots that never drains between shards, each distinct input written once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cellscribe.engine.atlas.batches import token_batches
from cellscribe.engine.atlas.job import AtlasJob
from cellscribe.engine.atlas.meter import Meter
from cellscribe.engine.atlas.plan import FileEntry, Shard
from cellscribe.engine.atlas.sources import Sources
from cellscribe.engine.atlas.tables import table_of, text_columns, vectors_column
from cellscribe.engine.atlas.twins import Recent, input_keys, take_cells
from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.decode.described import failed
from cellscribe.engine.decode.evidence import GeneAxis
from cellscribe.engine.describe import (
    ENCODE_CELLS,
    Asked,
    DescribeOptions,
    Subject,
    Writer,
    gene_axes,
    longest_memory,
)
from cellscribe.engine.source_model import SourceModel
from cellscribe.engine.types import Description

Floats = npt.NDArray[np.float32]


@dataclass
class Pending:
    """A shard whose texts are being written: texts and vectors [N, d] by place, and how many are still to come."""

    shard: Shard
    rows: npt.NDArray[np.int64]
    names: list[str]
    vectors: Floats
    groups: list[str | None] | None
    descriptions: list[Description | None] = field(init=False)
    left: int = field(init=False)
    is_fed: bool = False

    def __post_init__(self) -> None:
        self.descriptions, self.left = [None] * len(self.rows), len(self.rows)

    def settle(self, place: int, description: Description, vector: Floats | None) -> None:
        """Take the text and the vector of a cell."""
        self.descriptions[place] = description
        self.left -= 1
        if vector is not None:
            self.vectors[place] = vector


@dataclass
class Waiting:
    """A cell that waits for the text of its input, and the genes behind its memory."""

    pending: Pending
    place: int
    axis: GeneAxis


@dataclass
class Twin:
    """What is known of one input: the genes behind its memory, its vector float32 [d], its text once it is written."""

    key: bytes | None
    axis: GeneAxis
    vector: Floats | None = None
    description: Description | None = None
    waiting: list[Waiting] = field(default_factory=list)
    index: int = -1

    @property
    def n_bytes(self) -> int:
        """Bytes it takes, about."""
        return 4000 + (0 if self.vector is None else self.vector.nbytes)


class Describing:
    """Describes the cells of shards.

    Cells that are fed the same share one text where tokens are not drawn.
    """

    def __init__(
        self,
        model: SourceModel,
        job: AtlasJob,
        num_slots: int,
        sources: Sources,
        files: tuple[FileEntry, ...],
        meter: Meter,
    ) -> None:
        self._model, self._sources, self._files, self._meter = model, sources, files, meter
        self._options = DescribeOptions(job.sampling, job.new_tokens, num_slots, job.top_genes)
        self._is_shared = job.sampling.is_greedy
        self._recent: Recent[Twin] = Recent(lambda twin: twin.n_bytes)
        self._in_work: dict[bytes, Twin] = {}
        self._asked: dict[int, Twin] = {}
        self._done: deque[Pending] = deque()
        self._lock = threading.Lock()  # cells may be made ready in a thread
        self._count = 0
        self._kept: Shard | None = None  # whose cells need longer memories than the slots have

    def tables(self, shards: Iterable[Shard]) -> Iterator[tuple[Shard, pa.Table]]:
        """Give each shard with its results, as soon as its last text is written."""
        waiting = iter(shards)
        while (first := self._kept or next(waiting, None)) is not None:
            self._kept = None
            source, _ = self._sources.of(first)
            capacity = longest_memory(self._model.tokenizer(source))
            yield from self._stream(first, waiting, capacity)

    def _stream(self, first: Shard, others: Iterator[Shard], capacity: int) -> Iterator[tuple[Shard, pa.Table]]:
        writer = Writer(self._model.backend, self._model.bundle, self._options)
        seen_steps = seen_empty = 0
        requests = self._requests(first, others, capacity)
        with closing(writer.events(requests, capacity)) as events:
            for event in self._meter.each("decode", events):
                self._meter.tokens += event.token_id is not None
                if event.text.is_finished:
                    index = event.text.request.index
                    self._write(self._asked.pop(index), writer.take(index))
                    steps, empty = writer.occupancy.steps, writer.occupancy.empty
                    self._meter.steps += steps - seen_steps
                    self._meter.slot_steps += (steps - seen_steps) * writer.num_slots
                    self._meter.empty_steps += empty - seen_empty
                    seen_steps, seen_empty = steps, empty
                yield from self._finished()
        yield from self._finished()

    def _requests(self, first: Shard, others: Iterator[Shard], capacity: int) -> Iterator[Asked]:
        shard: Shard | None = first
        while shard is not None:
            source, rows = self._sources.of(shard)
            tokenizer = self._model.tokenizer(source)
            if longest_memory(tokenizer) > capacity:
                self._kept = shard
                return
            width = self._model.bundle.manifest.encoder_shape.d_model
            vectors = np.full((len(rows), width), np.nan, np.float32)
            names = [str(name) for name in source.obs_names[rows].tolist()]
            mine = Pending(shard, rows, names, vectors, self._sources.groups(shard))
            place_of = {row: i for i, row in enumerate(rows.tolist())}
            cells = max(ENCODE_CELLS, self._model.backend.cells_ahead // 2)
            for batch in token_batches(tokenizer, source, rows, cells, self._meter):
                for row, why in batch.failures:
                    self._meter.failed += 1
                    self._meter.cells += 1
                    with self._lock:
                        mine.settle(place_of[row], failed(mine.names[place_of[row]], why), None)
                yield from self._of_batch(mine, batch, [place_of[row] for row in batch.rows.tolist()])
            with self._lock:
                mine.is_fed = True
                self._close(mine)
            shard = next(others, None)

    def _of_batch(self, mine: Pending, batch: TokenBatch, places: list[int]) -> Iterator[Asked]:
        """Ask for the cells of a batch that nothing is known of."""
        keys = input_keys(batch) if self._is_shared else [None] * batch.n_cells
        axes = list(gene_axes(batch, self._model.bundle.vocabulary.tokens))
        fresh: list[tuple[int, Twin]] = []
        with self._lock:
            for i, (key, place, axis) in enumerate(zip(keys, places, axes, strict=True)):
                twin = None if key is None else self._recent.get(key) or self._in_work.get(key)
                if twin is None:
                    twin = Twin(key, axis)
                    fresh.append((i, twin))
                    if key is not None:
                        self._in_work[key] = twin
                else:
                    self._meter.shared += 1
                twin.waiting.append(Waiting(mine, place, axis))
                self._tell(twin)
        if not fresh:
            return
        is_whole = len(fresh) == batch.n_cells
        with self._meter.stage("encode"):
            encoded = self._model.backend.encode(batch if is_whole else take_cells(batch, [i for i, _ in fresh]))
        for nth, (i, twin) in enumerate(fresh):
            cell = encoded.cell[nth]
            if not np.isfinite(cell).all():
                self._write(twin, failed(batch.cell_ids[i], "its embedding is not finite"))
                continue
            twin.vector = cell / np.sqrt(cell.dot(cell))
            twin.index = self._count
            self._count += 1
            self._asked[twin.index] = twin
            yield Subject(twin.index, batch.cell_ids[i], axes[i]), encoded.memory[nth], batch.mask[i]

    def _write(self, twin: Twin, description: Description) -> None:
        """Take the text of an input, for all cells that wait for it."""
        with self._lock:
            twin.description = description
            if twin.key is not None:
                del self._in_work[twin.key]
                self._recent.put(twin.key, twin)
            self._tell(twin)

    def _tell(self, twin: Twin) -> None:
        """Give a text that is there to the cells that wait for it."""
        if twin.description is None:
            return
        for one in twin.waiting:
            pending = one.pending
            told = replace(twin.description, cell_id=pending.names[one.place])
            top = told.top_genes
            if top.symbols and not np.array_equal(one.axis.columns, twin.axis.columns):
                told = replace(told, top_genes=replace(top, columns=one.axis.columns_of(top.symbols)))
            pending.settle(one.place, told, twin.vector)
            self._meter.cells += 1
            self._meter.failed += not told.is_ok
            self._close(pending)
        twin.waiting.clear()

    def _close(self, pending: Pending) -> None:
        if pending.is_fed and not pending.left:
            self._done.append(pending)

    def _finished(self) -> Iterator[tuple[Shard, pa.Table]]:
        while self._done:
            one = self._done.popleft()
            assert all(text is not None for text in one.descriptions)
            texts = [text for text in one.descriptions if text is not None]
            columns = {**text_columns(texts), "embedding": vectors_column(one.vectors)}
            file = self._files[one.shard.file].name
            statuses = [text.status for text in texts]
            yield one.shard, table_of(file, one.rows, one.names, statuses, columns, one.groups)
