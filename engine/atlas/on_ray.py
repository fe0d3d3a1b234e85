"""Workers on a Ray cluster: shards are read by tasks, travel as blocks, and meet the models of an actor pool."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cellscribe.engine.atlas.folder import AtlasFolder
from cellscribe.engine.atlas.manifest import ShardRecord
from cellscribe.engine.atlas.plan import Shard
from cellscribe.engine.atlas.pool import OnFigures, OnRecord, Work
from cellscribe.engine.atlas.ray_cluster import Machines, cluster
from cellscribe.engine.atlas.storage import LocalStorage
from cellscribe.engine.errors import BackendError, CellscribeError

_CALLS = 2  # shards that a worker has at hand, so that its slots need not drain between them
_IN_FLIGHT = 4  # those, and what is on its way
_ON_GPUS = ("auto", "cuda", "tensorrt", "onnxruntime", "onnxruntime-cuda")


def run_on_ray(work: Work, shards: Sequence[Shard], on_record: OnRecord, on_figures: OnFigures) -> None:
    """Make shards on the machines of a cluster; what a dead worker had in work is done again by another one.

    Inputs, bundle and results have to be at the same places on all machines: on a shared disk, or behind URLs.

    Raises
    ------
    UsageError
        When Ray is not there, or no cluster.
    CellscribeError
        What a worker raised.
    BackendError
        When a shard ended its workers several times, or the cluster fails.
    """
    workers = min(work.running.workers, len(shards))
    threads = work.running.threads or max(1, (os.cpu_count() or 1) // workers)
    with cluster(work.running.ray_address, workers * threads) as machines, _settings() as ray_data:
        share = _share(work, workers, machines)
        for row in _results(ray_data, _anywhere(work, share.threads), shards, workers, share):
            told = json.loads(row["told"])
            on_figures(told["worker"], told["figures"])
            on_record(ShardRecord(**told["record"]))


@dataclass(frozen=True)
class _Share:
    """What of the cluster each worker gets."""

    threads: int | None
    gpus: int

    @property
    def resources(self) -> dict[str, int]:
        return {"num_gpus": self.gpus} if self.gpus else {"num_cpus": self.threads or 1}


def _share(work: Work, workers: int, machines: Machines) -> _Share:
    running = work.running
    if machines.gpus and running.backend in _ON_GPUS:
        return _Share(running.threads, 1)
    threads = running.threads or max(1, min(machines.cpus // workers, machines.most_cpus))
    if threads > machines.most_cpus:
        raise BackendError(
            f"a worker wants {threads} CPUs and the largest machine of the cluster has {machines.most_cpus}; choose "
            "fewer --threads."
        )
    return _Share(threads, 0)


def _anywhere(work: Work, threads: int | None) -> Work:
    """Return work whose paths hold whatever folder a worker starts in."""
    job, running, storage = work.job, work.running, work.folder.storage
    bundle = Path(job.bundle)
    folder = AtlasFolder(storage.path.resolve()) if isinstance(storage, LocalStorage) else work.folder
    return replace(
        work,
        job=replace(
            job,
            bundle=str(bundle.resolve()) if bundle.is_dir() else job.bundle,
            labels=job.labels and job.labels.resolve(),
            genes=job.genes and job.genes.resolve(),
        ),
        running=replace(running, threads=threads, plans=running.plans and running.plans.resolve()),
        folder=folder,
    )


@contextmanager
def _settings() -> Iterator[Any]:
    """Set Ray Data up for rows that are shards, and put it back as it was."""
    import ray.data

    context = ray.data.DataContext.get_current()
    wanted = {"enable_progress_bars": False, "target_max_block_size": 1, "enable_auto_log_stats": False}
    before = {name: getattr(context, name) for name in wanted}
    try:
        for name, value in wanted.items():
            setattr(context, name, value)
        yield ray.data
    finally:
        for name, value in before.items():
            setattr(context, name, value)


def _results(
    ray_data: Any, work: Work, shards: Sequence[Shard], workers: int, share: _Share
) -> Iterator[dict[str, Any]]:
    from cellscribe.engine.atlas.ray_cells import CellsDatasource
    from cellscribe.engine.atlas.ray_worker import ShardWorker

    cells = CellsDatasource(work.job, work.files, shards, workers)
    pool = ray_data.ActorPoolStrategy(
        min_size=1,
        max_size=workers,
        initial_size=workers,
        max_tasks_in_flight_per_actor=_IN_FLIGHT,
        max_concurrent_calls_per_actor=_CALLS,
        enable_true_multi_threading=True,
    )
    # Reading mostly waits; if it asked for CPUs, workers that have them all would wait for it forever.
    found = ray_data.read_datasource(
        cells, num_cpus=0, concurrency=workers, override_num_blocks=cells.n_tasks
    ).map_batches(
        ShardWorker,
        fn_constructor_args=(work, 0 if share.gpus else share.threads),
        batch_size=1,
        batch_format="pyarrow",
        compute=pool,
        **share.resources,
    )
    try:
        yield from found.iter_rows()
    except CellscribeError:
        raise
    except Exception as error:
        raise _cause(error) from error


def _cause(error: BaseException) -> CellscribeError:
    """Return what a worker raised, or one sentence about what went wrong."""
    from ray.exceptions import ActorDiedError, RayError

    one: BaseException | None = error
    for _ in range(10):
        if isinstance(one, CellscribeError) and not isinstance(one, RayError):
            return type(one)(str(one))
        if isinstance(one, ModuleNotFoundError):
            return BackendError(f"a machine of the cluster lacks {one.name}; install the same cellscribe on all.")
        if isinstance(one, ActorDiedError):
            return BackendError("the workers of the cluster end before they begin; see its logs, and resume.")
        one = getattr(one, "cause", None) or (one.__cause__ if one is not None else None)
    reason = str(error).strip().rpartition("\n")[2][:200].rstrip(".")
    return BackendError(f"the Ray cluster cannot go on ({reason}); see its logs, and resume.")
