from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from atlas_cells import write_cells

from cellscribe.engine.atlas import pool
from cellscribe.engine.atlas.job import AtlasJob, Running
from cellscribe.engine.atlas.manifest import ShardRecord
from cellscribe.engine.atlas.run import run_atlas
from cellscribe.engine.errors import BackendError, InputError, UsageError

JOB = AtlasJob("embed", shard_cells=8)
TWO = Running(workers=2, threads=1)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cells(tmp_path_factory.mktemp("cells") / "a.h5ad", 40)


def table(out: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(one) for one in sorted((out / "shards").glob("*.parquet")))


@pytest.fixture(scope="module")
def whole(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    out = tmp_path_factory.mktemp("whole") / "out"
    run_atlas([str(cells)], out, JOB)
    return table(out)


def test_two_processes_give_what_one_gives(cells: Path, whole: pa.Table, tmp_path: Path) -> None:
    outcome = run_atlas([str(cells)], tmp_path / "out", JOB, TWO)
    assert table(tmp_path / "out").equals(whole)
    assert {one.worker for one in outcome.records} <= {"0", "1"}


def test_a_worker_that_is_killed_is_replaced(
    cells: Path, whole: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    give = pool._Pool._give

    def and_kill(self: Any, worker: Any) -> None:
        give(self, worker)
        if not killed and worker.in_work:
            killed.append(worker.process.pid)
            os.kill(worker.process.pid, signal.SIGKILL)

    monkeypatch.setattr(pool._Pool, "_give", and_kill)
    run_atlas([str(cells)], tmp_path / "out", JOB, TWO)
    assert killed
    assert table(tmp_path / "out").equals(whole)


def test_a_shard_that_kills_its_workers_ends_the_run_when_the_others_are_done(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give = pool._Pool._give

    def and_kill(self: Any, worker: Any) -> None:
        give(self, worker)
        if 2 in worker.in_work:
            os.kill(worker.process.pid, signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(pool._Pool, "_give", and_kill)
        with pytest.raises(BackendError, match=r"shard 2: SIGKILL.*resume"):
            run_atlas([str(cells)], tmp_path / "out", JOB, TWO)
    assert len(list((tmp_path / "out" / "shards").glob("*.parquet"))) >= 3
    run_atlas([str(cells)], tmp_path / "out", JOB, is_resumed=True)
    assert len(table(tmp_path / "out")) == 40


def test_what_a_worker_raises_is_raised(cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = tmp_path / "away.h5ad"
    copy = tmp_path / "b.h5ad"
    copy.write_bytes(cells.read_bytes())
    give = pool._Pool._give

    def and_unmount(self: Any, worker: Any) -> None:
        if copy.exists():
            copy.rename(away)
        give(self, worker)

    monkeypatch.setattr(pool._Pool, "_give", and_unmount)
    with pytest.raises(InputError, match=r"b\.h5ad"):
        run_atlas([str(copy)], tmp_path / "out", JOB, TWO)


def test_too_few_workers_are_refused() -> None:
    with pytest.raises(UsageError, match="--workers is 0"):
        Running(workers=0)


def test_records_are_plain_values() -> None:
    record = ShardRecord(0, 0, 1, 0, 0, 10, "ab")
    assert record == ShardRecord(**vars(record))


def test_every_worker_gets_a_gpu_in_turn(monkeypatch: pytest.MonkeyPatch, cells: Path, tmp_path: Path) -> None:
    given: list[Any] = []
    monkeypatch.setattr(pool, "find_gpus", lambda: [SimpleNamespace(uuid="GPU-a"), SimpleNamespace(uuid="GPU-b")])

    def process(target: Any, args: Any, daemon: bool) -> Any:
        given.append(args[3])
        args[0].send(("error", BackendError("enough")))
        return SimpleNamespace(start=lambda: None, join=lambda *_: None, is_alive=lambda: False, pid=0)

    context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=process)
    monkeypatch.setattr(pool.multiprocessing, "get_context", lambda kind: context)
    with pytest.raises(BackendError, match="enough"):
        run_atlas([str(cells)], tmp_path / "out", JOB, Running(workers=3, threads=1))
    assert given == ["GPU-a", "GPU-b", "GPU-a"]
