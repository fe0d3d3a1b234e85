"""Vectors of shards, each distinct input encoded once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cellscribe.engine.atlas.batches import token_batches
from cellscribe.engine.atlas.meter import Meter
from cellscribe.engine.atlas.plan import FileEntry, Shard
from cellscribe.engine.atlas.sources import Sources
from cellscribe.engine.atlas.tables import OK, table_of, vectors_column
from cellscribe.engine.atlas.twins import Recent, input_keys, take_cells
from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.decode.ahead import Ahead
from cellscribe.engine.source_model import SourceModel

Floats = npt.NDArray[np.float32]
_BATCH_CELLS = 32
_AHEAD = 2
_NOT_FINITE = "failed: its embedding is not finite"


def _with_keys(batches: Iterator[TokenBatch]) -> Iterator[tuple[TokenBatch, list[bytes]]]:
    for batch in batches:
        yield batch, input_keys(batch)


class Embedding:
    """Embeds the cells of shards with the encoder of a bundle that has one."""

    def __init__(self, model: SourceModel, sources: Sources, files: tuple[FileEntry, ...], meter: Meter) -> None:
        self._model, self._sources, self._files, self._meter = model, sources, files, meter
        self._recent: Recent[Floats] = Recent(lambda vector: vector.nbytes)
        self._width = model.bundle.manifest.encoder_shape.d_model

    def tables(self, shards: Iterable[Shard]) -> Iterator[tuple[Shard, pa.Table]]:
        """Give each shard with its results."""
        for shard in shards:
            yield shard, self._table(shard)

    def _table(self, shard: Shard) -> pa.Table:
        source, rows = self._sources.of(shard)
        place_of = {row: i for i, row in enumerate(rows.tolist())}
        vectors = np.full((len(rows), self._width), np.nan, np.float32)
        statuses = [OK] * len(rows)
        batches = token_batches(self._model.tokenizer(source), source, rows, _BATCH_CELLS, self._meter)
        # On a CPU, too: the encoder's threads fall asleep when batches do not follow each other at once.
        with closing(Ahead(_with_keys(batches), _AHEAD)) as ready:
            for batch, keys in ready:
                for row, why in batch.failures:
                    statuses[place_of[row]] = f"failed: {why}"
                    self._meter.failed += 1
                places = [place_of[row] for row in batch.rows.tolist()]
                found = self._vectors(batch, keys)
                vectors[places] = found
                for place in np.flatnonzero(~np.isfinite(found).all(axis=1)).tolist():
                    statuses[places[place]] = _NOT_FINITE
                    self._meter.failed += 1
                self._meter.cells += batch.n_cells + len(batch.failures)
        names = source.obs_names[rows].tolist()
        columns = {"embedding": vectors_column(vectors)}
        groups = self._sources.groups(shard)
        return table_of(self._files[shard.file].name, rows, names, statuses, columns, groups)

    def _vectors(self, batch: TokenBatch, keys: list[bytes]) -> Floats:
        """Return vectors of length 1, float32 [B, d]; NaN where the encoder gave no finite ones."""
        found = np.empty((batch.n_cells, self._width), np.float32)
        first: dict[bytes, int] = {}
        for i, key in enumerate(keys):
            known = self._recent.get(key)
            if known is not None:
                found[i] = known
            else:
                first.setdefault(key, i)
        if first:
            fresh = list(first.values())
            asked = batch if len(fresh) == batch.n_cells else take_cells(batch, fresh)
            with self._meter.stage("encode"):
                encoded = self._model.backend.encode(asked)
            for place, cell in zip(fresh, encoded.cell, strict=True):
                # The bits of np.linalg.norm, which does the same behind more checks; a sum over the batch has others.
                length = np.sqrt(cell.dot(cell))
                vector = cell / length if 0 < length < np.inf else np.full_like(cell, np.nan)
                self._recent.put(keys[place], vector)
                found[place] = vector
            for i, key in enumerate(keys):
                if key in first and first[key] != i:
                    found[i] = found[first[key]]
        self._meter.shared += batch.n_cells - len(first)
        return found
