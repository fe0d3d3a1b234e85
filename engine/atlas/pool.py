"""Workers of this machine: one model in this process, or processes on cores of their own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from cellscribe.engine.atlas.folder import AtlasFolder
from cellscribe.engine.atlas.job import AtlasJob, Running
from cellscribe.engine.atlas.manifest import ShardRecord
from cellscribe.engine.atlas.meter import Meter
from cellscribe.engine.atlas.plan import FileEntry, Plan, Shard
from cellscribe.engine.atlas.sources import Sources
from cellscribe.engine.atlas.tasks import open_task
from cellscribe.engine.errors import BackendError, CellscribeError
from cellscribe.engine.gpu import find_gpus

OnRecord = Callable[[ShardRecord], None]
OnFigures = Callable[[str, dict[str, Any]], None]  # worker, snapshot of its meter

_TRIES = 3
_TELL_SECONDS = 0.5
_END_SECONDS = 5.0


@dataclass(frozen=True)
class Work:
    """What every worker is told."""

    job: AtlasJob
    running: Running
    files: tuple[FileEntry, ...]
    folder: AtlasFolder
    run: str


def work_on(work: Work, shards: Iterable[Shard], meter: Meter, worker: str) -> Iterator[ShardRecord]:
    """Make shards and write them, in this process."""
    with Sources(work.job, work.files) as sources:
        task = open_task(work.job, work.running, sources, work.files, meter)
        began = time.perf_counter()
        for shard, table in task.tables(shards):
            sources.check(shard)
            with meter.stage("write"):
                record = work.folder.write_shard(shard, table, work.run, time.perf_counter() - began, worker)
            began = time.perf_counter()
            yield record


def run_here(work: Work, shards: Sequence[Shard], on_record: OnRecord, on_figures: OnFigures) -> None:
    """Make shards with one model in this process."""
    meter = Meter()
    with _telling(lambda: on_figures("0", meter.snapshot())):
        for record in work_on(work, shards, meter, "0"):
            on_record(record)


def run_in_processes(work: Work, shards: Sequence[Shard], on_record: OnRecord, on_figures: OnFigures) -> None:
    """Make shards with several processes; one that dies is replaced, and what it had in work is done again.

    Raises
    ------
    CellscribeError
        What a worker raised, when the others have ended.
    BackendError
        When a shard ended its worker several times.
    """
    _Pool(work, shards, on_record, on_figures).run()


@dataclass
class _Worker:
    name: str
    process: BaseProcess
    pipe: Connection
    in_work: set[int] = field(default_factory=set)


class _Pool:
    def __init__(self, work: Work, shards: Sequence[Shard], on_record: OnRecord, on_figures: OnFigures) -> None:
        self._work, self._on_record, self._on_figures = work, on_record, on_figures
        self._todo = deque(one.number for one in shards)
        self._left = {one.number for one in shards}
        self._tries: dict[int, int] = {}
        self._lost: dict[int, str] = {}
        self._workers: dict[str, _Worker] = {}
        self._starts = 0

    def run(self) -> None:
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        count = min(self._work.running.workers, len(self._todo))
        self._gpus = [one.uuid for one in find_gpus()]
        self._shares = [cores[i::count] for i in range(count)] if len(cores) >= count else [cores] * count
        try:
            for share in range(count):
                self._start(share)
            while self._left - self._lost.keys():
                self._turn()
        finally:
            self._end()
        if self._lost:
            number, how = next(iter(self._lost.items()))
            raise BackendError(
                f"{len(self._lost)} shards ended their workers {_TRIES} times (shard {number}: {how}); if memory is "
                "short, choose fewer --workers or a smaller --batch-size, and resume."
            )

    def _start(self, share: int) -> None:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        cores = self._shares[share]
        threads = self._work.running.threads or max(1, len(cores))
        told = replace(self._work, running=replace(self._work.running, threads=threads))
        name = str(share)
        gpu = self._gpus[share % len(self._gpus)] if self._gpus else None
        process = context.Process(target=_serve, args=(there, told, cores, gpu, name), daemon=True)
        process.start()
        there.close()
        self._workers[name] = _Worker(name, process, here)

    def _turn(self) -> None:
        if not self._workers:
            raise BackendError("the workers ended before their work; resume the run.")
        by_pipe = {one.pipe: one for one in self._workers.values()}
        for pipe in wait(list(by_pipe), timeout=1.0):
            assert isinstance(pipe, Connection)
            worker = by_pipe[pipe]
            try:
                kind, told = pipe.recv()
            except (EOFError, OSError):
                self._replace(worker)
                continue
            if kind == "next":
                self._give(worker)
            elif kind == "done":
                worker.in_work.discard(told.number)
                self._left.discard(told.number)
                self._on_record(told)
            elif kind == "figures":
                self._on_figures(worker.name, told)
            else:
                raise told

    def _give(self, worker: _Worker) -> None:
        number = self._todo.popleft() if self._todo else None
        if number is not None:
            worker.in_work.add(number)
        with contextlib.suppress(OSError):  # a worker that has died is found at its pipe
            worker.pipe.send(number)

    def _replace(self, worker: _Worker) -> None:
        """Take back what a dead worker had, and start another one while there is work."""
        worker.process.join()
        worker.pipe.close()
        code = worker.process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        del self._workers[worker.name]
        for number in sorted(worker.in_work, reverse=True):
            self._tries[number] = self._tries.get(number, 0) + 1
            if self._tries[number] >= _TRIES:
                self._lost[number] = how
            else:
                self._todo.appendleft(number)
        self._starts += code != 0 and not worker.in_work
        if self._starts > _TRIES * self._work.running.workers:
            raise BackendError(f"workers end before they begin ({how}); try --workers 1 to see why.")
        if self._todo:
            self._start(int(worker.name))

    def _end(self) -> None:
        for one in self._workers.values():
            with contextlib.suppress(OSError):
                one.pipe.close()
        until = time.monotonic() + (_END_SECONDS if not self._left else 0.0)
        for one in self._workers.values():
            one.process.join(max(0.0, until - time.monotonic()))
            if one.process.is_alive():
                one.process.kill()
                one.process.join()


def _serve(pipe: Connection, work: Work, cores: list[int], gpu: str | None, name: str) -> None:
    """Ask for shards, make them, and tell; on cores and a GPU of its own."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who asks decides
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    plan = Plan(work.files, work.job.shard_cells)
    meter, lock = Meter(), threading.Lock()

    def tell(kind: str, what: object = None) -> None:
        with lock:
            pipe.send((kind, what))

    def asked_for() -> Iterator[Shard]:
        while True:
            tell("next")
            number = pipe.recv()
            if number is None:
                return
            yield plan.shards[number]

    with contextlib.suppress(EOFError, OSError):  # the one who asks has ended, or needs no more
        try:
            with _telling(lambda: tell("figures", meter.snapshot())):
                for record in work_on(work, asked_for(), meter, name):
                    tell("done", record)
        except CellscribeError as error:
            tell("error", type(error)(str(error)))
    pipe.close()


@contextlib.contextmanager
def _telling(tell: Callable[[], None]) -> Iterator[None]:
    """Call a function every half second while a block runs, and once at its end."""
    is_over = threading.Event()

    def go_on() -> None:
        while not is_over.wait(_TELL_SECONDS):
            with contextlib.suppress(OSError):
                tell()

    thread = threading.Thread(target=go_on, name="figures", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    tell()
