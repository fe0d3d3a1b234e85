"""A worker of a Ray cluster: a model that is loaded once and fed shards as they arrive."""

from __future__ import annotations

import json
import os
import queue
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import asdict

import pyarrow as pa

from cellscribe.engine.atlas.carried_source import CarriedSources
from cellscribe.engine.atlas.cores import keep_to_own_cores
from cellscribe.engine.atlas.manifest import ShardRecord
from cellscribe.engine.atlas.meter import Meter
from cellscribe.engine.atlas.plan import Shard
from cellscribe.engine.atlas.pool import Work
from cellscribe.engine.atlas.tasks import AtlasTask, open_task
from cellscribe.engine.errors import BackendError

Written = Future[ShardRecord]
MAX_TRIES = 3


class ShardWorker:
    """Makes the results of shards, and writes them. It may be called from several threads at once.

    Parameters
    ----------
    work
        What every worker is told.
    cores
        CPU cores to keep to, those that no other worker of the machine keeps to; 0 for none of its own.
    """

    def __init__(self, work: Work, cores: int = 0) -> None:
        self._work, self._cores = work, cores
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self._meter = Meter()
        self._sources = CarriedSources(work.job, work.files)
        self._todo: queue.SimpleQueue[tuple[pa.Table, Written]] = queue.SimpleQueue()
        self._in_work: dict[int, Written] = {}
        threading.Thread(target=self._serve, name="shards", daemon=True).start()

    def __call__(self, cells: pa.Table) -> pa.Table:
        """Take the cells of a shard, and return its record and the worker's figures as JSON.

        A shard that was written already, by a worker that died before it could tell, is left as it is.

        Raises
        ------
        BackendError
            When the shard ended too many workers.
        """
        shard, folder = Shard(*cells["shard"][0].as_py()), self._work.folder
        record = folder.record_of(shard, self._work.run)
        if record is None:
            if folder.begin(shard) > MAX_TRIES:
                raise BackendError(
                    f"shard {shard.number} ended its worker {MAX_TRIES} times; if memory is short, choose a smaller "
                    "--batch-size or --shard-cells, and resume."
                )
            written: Written = Future()
            self._todo.put((cells, written))
            record = written.result()
        folder.end(shard)
        told = {"record": asdict(record), "worker": self.name, "figures": self._meter.snapshot()}
        return pa.table({"told": [json.dumps(told)]})

    def _serve(self) -> None:
        task: AtlasTask | None = None
        if self._cores:
            keep_to_own_cores(self._cores)
        while True:
            with self._meter.stage("read"):
                first = self._todo.get()
            try:
                if task is None:
                    work = self._work
                    task = open_task(work.job, work.running, self._sources, work.files, self._meter)
                self._stream(task, first)
            except BaseException as error:  # whoever waits for a shard has to hear of it
                for written in {first[1], *self._in_work.values()}:
                    if not written.done():
                        written.set_exception(error)
                self._in_work.clear()

    def _stream(self, task: AtlasTask, first: tuple[pa.Table, Written]) -> None:
        """Make shards until none is waiting."""
        work, began = self._work, time.perf_counter()
        for shard, table in task.tables(self._arriving(first)):
            with self._meter.stage("write"):
                record = work.folder.write_shard(shard, table, work.run, time.perf_counter() - began, self.name)
            began = time.perf_counter()
            self._sources.release(shard)
            self._in_work.pop(shard.number).set_result(record)

    def _arriving(self, first: tuple[pa.Table, Written]) -> Iterator[Shard]:
        waiting: tuple[pa.Table, Written] | None = first
        while waiting is not None:
            cells, written = waiting
            shard = self._sources.hold(cells)
            self._in_work[shard.number] = written
            yield shard
            try:
                waiting = self._todo.get_nowait()
            except queue.Empty:
                waiting = None
