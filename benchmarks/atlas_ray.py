"""How `cellscribe atlas --engine ray` grows with workers: embeddings on a local cluster, a core for each worker.

    python benchmarks/atlas_ray.py CELLS.h5ad [--workers 1 2] [--repeats 2]

Machines of one core each are simulated on this one, as many as the most workers. The rate is that of the time in which
all workers are at work: from the moment when the last of them has written its first shard until the first of them has
written its last; the whole run, with the start of Ray and of the models, is said beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from cellscribe.engine.atlas.folder import AtlasFolder, ShardRecord
from cellscribe.engine.atlas.inputs import find_inputs
from cellscribe.engine.atlas.job import AtlasJob, Running
from cellscribe.engine.atlas.on_ray import run_on_ray
from cellscribe.engine.atlas.plan import look_through
from cellscribe.engine.atlas.pool import Work


@dataclass(frozen=True)
class Rate:
    """One run: cells a second while all workers were at work, and over all of it."""

    workers: int
    cells: int
    seconds: float
    cells_per_second: float
    cells_per_second_whole: float


def run(cells: Path, workers: int, address: str, shard_cells: int) -> Rate:
    job = AtlasJob("embed", shard_cells=shard_cells)
    plan = look_through(find_inputs([str(cells)]), job)
    began, seen = time.perf_counter(), list[tuple[float, ShardRecord]]()
    with tempfile.TemporaryDirectory() as out:
        folder = AtlasFolder(Path(out))
        folder.make()
        work = Work(job, Running(workers=workers, threads=1, ray_address=address), plan.files, folder, "bench")
        run_on_ray(work, plan.shards, lambda one: seen.append((time.perf_counter() - began, one)), lambda *_: None)
    seconds = time.perf_counter() - began
    times = {one.worker: [at for at, other in seen if other.worker == one.worker] for _, one in seen}
    start, stop = max(min(one) for one in times.values()), min(max(one) for one in times.values())
    steady = sum(one.n_cells for at, one in seen if start < at <= stop) / (stop - start)
    return Rate(len(times), plan.n_cells, round(seconds, 2), round(steady, 1), round(plan.n_cells / seconds, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--shard-cells", type=int, default=512)
    asked = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    machine = {"num_cpus": 1, "object_store_memory": 300 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**machine, "include_dashboard": False})
    try:
        for _ in range(max(asked.workers) - 1):
            cluster.add_node(**machine)
        for _ in range(asked.repeats):
            for workers in asked.workers:
                print(
                    json.dumps(asdict(run(asked.cells, workers, str(cluster.address), asked.shard_cells))), flush=True
                )
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
